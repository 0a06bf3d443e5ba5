/* The operations of QB-INT 1. C99, no allocation, no floating point, no state.
 *
 * Data are only added, subtracted, compared and shifted: a burst of s adds its weight s times, and a neuron fires by
 * subtracting its threshold until it is below it. The one exception is QB_MUL12_TO_ZERO, which multiplies once per
 * neuron and step. Addresses are computed with multiplications by constant sizes.
 */
enum { QB_NONE, QB_SHIFT_FLOOR, QB_SHIFT_XYLO, QB_MUL12_TO_ZERO };
enum { QB_FLOOR, QB_ROUND, QB_TO_ZERO };
enum { QB_ERROR, QB_SATURATE, QB_WRAP };

struct qb_layer {
    int32_t channels, positions; /* positions of the map per channel */
    const int32_t *bias, *theta; /* per channel */
    int32_t s_min, s_max, leak, amount, rounding, hard;
};

struct qb_conv {
    int32_t channels, rows, columns, outputs, out_rows, out_columns, groups;
    int32_t kernel_rows, kernel_columns, down, right, pad_rows, pad_columns;
};

/* A window of a pool; conv's fields of the same names mean the same. */
struct qb_pool {
    int32_t channels, rows, columns, out_rows, out_columns;
    int32_t kernel_rows, kernel_columns, down, right, pad_rows, pad_columns, maximum;
};

/* q s times: one synapse, and the only place where a weight meets a burst. */
static inline void qb_add(int32_t *sum, int32_t q, int32_t s)
{
    for (; s > 0; s--)
        *sum += q;
    for (; s < 0; s++)
        *sum -= q;
}

static inline void qb_linear(int32_t *sum, const qb_spike *s, const int8_t *q, int32_t inputs, int32_t outputs)
{
    for (int32_t i = 0; i < inputs; i++)
        if (s[i] != 0)
            for (int32_t o = 0; o < outputs; o++)
                qb_add(&sum[o], q[o * inputs + i], s[i]);
}

/* The output row or column that reads position `at` through tap `k` of the kernel, or -1. */
static inline int32_t qb_target(int32_t at, int32_t k, int32_t padding, int32_t stride, int32_t size)
{
    int32_t start = at + padding - k;
    return start >= 0 && start % stride == 0 && start / stride < size ? start / stride : -1;
}

/* What s spikes of one input position add to every output that sees it. */
static inline void qb_scatter(int32_t *sum, const int8_t *q, const struct qb_conv *c, int32_t i, int32_t y, int32_t x,
                              int32_t s)
{
    int32_t inputs = c->channels / c->groups, outputs = c->outputs / c->groups, first = i / inputs * outputs;
    for (int32_t ky = 0; ky < c->kernel_rows; ky++) {
        int32_t row = qb_target(y, ky, c->pad_rows, c->down, c->out_rows);
        for (int32_t kx = 0; row >= 0 && kx < c->kernel_columns; kx++) {
            int32_t column = qb_target(x, kx, c->pad_columns, c->right, c->out_columns);
            for (int32_t o = first; column >= 0 && o < first + outputs; o++)
                qb_add(&sum[(o * c->out_rows + row) * c->out_columns + column],
                       q[((o * inputs + i % inputs) * c->kernel_rows + ky) * c->kernel_columns + kx], s);
        }
    }
}

static inline void qb_conv(int32_t *sum, const qb_spike *s, const int8_t *q, const struct qb_conv *c)
{
    for (int32_t i = 0; i < c->channels; i++)
        for (int32_t y = 0; y < c->rows; y++)
            for (int32_t x = 0; x < c->columns; x++, s++)
                if (*s != 0)
                    qb_scatter(sum, q, c, i, y, x, *s);
}

/* The sum m*s of an identity shortcut. */
static inline void qb_identity(int32_t *sum, const qb_spike *s, const int32_t *m, int32_t channels, int32_t positions)
{
    for (int32_t c = 0; c < channels; c++)
        for (int32_t p = 0; p < positions; p++)
            qb_add(sum++, m[c], *s++);
}

/* floor(v / 2^n); C99 leaves >> of a negative value to the compiler, and ~v is not negative. */
static inline int32_t qb_floor_shift(int32_t v, int32_t n)
{
    return v < 0 ? ~(~v >> n) : v >> n;
}

static inline int32_t qb_leaked(int32_t v, int32_t leak, int32_t amount)
{
    if (leak == QB_SHIFT_FLOOR)
        return v - qb_floor_shift(v, amount);
    if (leak == QB_SHIFT_XYLO) {
        int32_t loss = qb_floor_shift(v, amount); /* 0 for v from 0 to 2^n - 1 only */
        return v - (loss != 0 ? loss : v > 0);
    }
    if (leak == QB_MUL12_TO_ZERO)
        return (int32_t)((int64_t)v * (4096 - amount) / 4096);
    return v;
}

/* v + step in a register of QBSNN_MEMBRANE_BITS. *overflows counts sums that do not fit it and steps that are no
 * int32_t. With QB_ERROR the value is then held at the end of the range and means nothing. */
static inline int32_t qb_fit(int32_t v, int64_t step, uint32_t *overflows)
{
    const int64_t top = (int64_t)1 << (QBSNN_MEMBRANE_BITS - 1), sum = v + step;
    const int fits = sum >= -top && sum < top;
    if (!fits || step < INT32_MIN || step > INT32_MAX)
        ++*overflows;
    if (fits)
        return (int32_t)sum;
    if (QBSNN_OVERFLOW == QB_WRAP)
        return (int32_t)((int64_t)(((uint64_t)sum + (uint64_t)top) & (2 * (uint64_t)top - 1)) - top);
    return (int32_t)(sum < 0 ? -top : top - 1);
}

/* One step of a layer: v and s are updated from the sums. */
static inline void qb_neurons(int32_t *v, qb_spike *s, const int32_t *sum, const struct qb_layer *l,
                              uint32_t *overflows)
{
    for (int32_t c = 0; c < l->channels; c++) {
        const int32_t theta = l->theta[c], half = l->rounding == QB_ROUND ? theta / 2 : 0;
        const int32_t lowest = l->rounding == QB_TO_ZERO ? 1 - theta : -half; /* without a negative spike */
        for (int32_t p = 0; p < l->positions; p++, v++, s++, sum++) {
            int32_t n = 0, u = qb_fit(qb_leaked(*v, l->leak, l->amount), (int64_t)*sum + l->bias[c], overflows);
            for (; n < l->s_max && u >= theta - half; n++)
                u -= theta;
            for (; n > l->s_min && u < lowest; n--)
                u += theta;
            *s = (qb_spike)n;
            *v = l->hard && n != 0 ? 0 : u;
        }
    }
}

/* One window: its sum, or its maximum over the positions inside the map. */
static inline int32_t qb_window(const qb_spike *map, const struct qb_pool *w, int32_t top, int32_t left)
{
    int32_t result = w->maximum ? INT32_MIN : 0;
    for (int32_t y = top; y < top + w->kernel_rows; y++)
        for (int32_t x = left; x < left + w->kernel_columns; x++) {
            if (y < 0 || y >= w->rows || x < 0 || x >= w->columns)
                continue;
            int32_t s = map[y * w->columns + x];
            if (!w->maximum)
                result += s;
            else if (s > result)
                result = s;
        }
    return result;
}

static inline void qb_pool(qb_spike *out, const qb_spike *s, const struct qb_pool *w)
{
    for (int32_t c = 0; c < w->channels; c++, s += w->rows * w->columns)
        for (int32_t y = 0; y < w->out_rows; y++)
            for (int32_t x = 0; x < w->out_columns; x++)
                *out++ = (qb_spike)qb_window(s, w, y * w->down - w->pad_rows, x * w->right - w->pad_columns);
}
