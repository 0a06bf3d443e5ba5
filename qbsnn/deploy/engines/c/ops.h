/* The operations of QB-INT 1. C99, no allocation, no floating point, no state.
 *
 * Data are only added, subtracted, compared and shifted: a burst of s adds its weight s times, and a neuron fires by
 * subtracting its threshold until it is below it. Exceptions are QB_MUL12_TO_ZERO, which multiplies once per neuron and
 * step, and a build with QBSNN_MULTIPLY. Addresses are computed with multiplications by constant sizes.
 *
 * Maps lie channels innermost: the value of channel c at row y and column x is [(y * columns + x) * channels + c]. The
 * inner loops run over channels, without a branch, so that a compiler turns them into vector instructions (gcc and
 * clang at -O3). What is zero is skipped, for all outputs at once.
 */
#ifdef __cplusplus
#define QB_RESTRICT /* C++ has no such word */
#else
#define QB_RESTRICT restrict
#endif

enum { QB_NONE, QB_SHIFT_FLOOR, QB_SHIFT_XYLO, QB_MUL12_TO_ZERO };
enum { QB_FLOOR, QB_ROUND, QB_TO_ZERO };
enum { QB_ERROR, QB_SATURATE, QB_WRAP };

struct qb_layer {
    int32_t channels, positions; /* positions of the map */
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

/* q s times for a row of outputs: the only place where a weight meets a burst. QBSNN_MULTIPLY is for processors that
 * multiply as fast as they add. */
static inline void qb_add(int32_t *QB_RESTRICT sum, const int8_t *QB_RESTRICT q, int32_t s, int32_t outputs)
{
#ifdef QBSNN_MULTIPLY
    for (int32_t o = 0; o < outputs; o++)
        sum[o] += q[o] * s;
    return;
#endif
    for (; s > 0; s--)
        for (int32_t o = 0; o < outputs; o++)
            sum[o] += q[o];
    for (; s < 0; s++)
        for (int32_t o = 0; o < outputs; o++)
            sum[o] -= q[o];
}

/* The weights are [inputs][outputs]. */
static inline void qb_linear(int32_t *sum, const qb_spike *s, const int8_t *q, int32_t inputs, int32_t outputs)
{
    for (int32_t i = 0; i < inputs; i++)
        if (s[i] != 0)
            qb_add(sum, q + i * outputs, s[i], outputs);
}

/* The output row or column that reads position `at` through tap `k` of the kernel, or -1. */
static inline int32_t qb_target(int32_t at, int32_t k, int32_t padding, int32_t stride, int32_t size)
{
    int32_t start = at + padding - k;
    return start >= 0 && start % stride == 0 && start / stride < size ? start / stride : -1;
}

/* What the spikes of one input position add through one tap of the kernel, whose weights are [channels][outputs]. */
static inline void qb_tap(int32_t *sum, const qb_spike *s, const int8_t *q, const struct qb_conv *c)
{
    const int32_t inputs = c->channels / c->groups, outputs = c->outputs / c->groups;
    for (int32_t g = 0; g < c->groups; g++, sum += outputs)
        for (int32_t i = 0; i < inputs; i++, s++, q += outputs)
            if (*s != 0)
                qb_add(sum, q, *s, outputs);
}

/* The weights are [kernel rows][kernel columns][channels][outputs of the channel's group]. */
static inline void qb_conv(int32_t *sum, const qb_spike *s, const int8_t *q, const struct qb_conv *c)
{
    const int32_t tap = c->channels * (c->outputs / c->groups);
    for (int32_t y = 0; y < c->rows; y++)
        for (int32_t x = 0; x < c->columns; x++, s += c->channels)
            for (int32_t ky = 0; ky < c->kernel_rows; ky++) {
                const int32_t row = qb_target(y, ky, c->pad_rows, c->down, c->out_rows);
                for (int32_t kx = 0; row >= 0 && kx < c->kernel_columns; kx++) {
                    const int32_t column = qb_target(x, kx, c->pad_columns, c->right, c->out_columns);
                    if (column >= 0)
                        qb_tap(sum + (row * c->out_columns + column) * c->outputs, s,
                               q + (ky * c->kernel_columns + kx) * tap, c);
                }
            }
}

/* The sum m*s of an identity shortcut. */
static inline void qb_identity(int32_t *sum, const qb_spike *s, const int32_t *m, int32_t channels, int32_t positions)
{
    for (int32_t p = 0; p < positions; p++)
        for (int32_t c = 0; c < channels; c++, sum++) {
            int32_t n = *s++;
            for (; n > 0; n--)
                *sum += m[c];
            for (; n < 0; n++)
                *sum -= m[c];
        }
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

/* The bits of x that its sign does not repeat: below 2^n if -2^n <= x < 2^n. */
static inline uint32_t qb_bits(int32_t x)
{
    return (uint32_t)(x < 0 ? ~x : x);
}

/* Whether v, sums and biases of a layer are so small that v + sum + bias fits the register of every neuron. */
static inline int qb_small(const int32_t *v, const int32_t *sum, const struct qb_layer *l)
{
    uint32_t bits = 0;
    for (int32_t i = 0; i < l->channels * l->positions; i++)
        bits |= qb_bits(v[i]) | qb_bits(sum[i]);
    for (int32_t c = 0; c < l->channels; c++)
        bits |= qb_bits(l->bias[c]);
    return ((uint64_t)bits + 1) << 3 <= (uint64_t)1 << QBSNN_MEMBRANE_BITS;
}

/* The neurons of one position fire: s and what they leave of v. Neurons that are done wait for those that are not. */
static inline void qb_fire(int32_t *QB_RESTRICT v, qb_spike *QB_RESTRICT s, const struct qb_layer *l)
{
    for (int32_t c = 0; c < l->channels; c++)
        s[c] = 0;
    for (int32_t n = 0, any = 1; any && n < l->s_max; n++) {
        any = 0;
        for (int32_t c = 0; c < l->channels; c++) {
            const int32_t theta = l->theta[c], fires = v[c] >= theta - (l->rounding == QB_ROUND ? theta / 2 : 0);
            v[c] -= fires ? theta : 0;
            s[c] = (qb_spike)(s[c] + fires);
            any |= fires;
        }
    }
    for (int32_t n = 0, any = 1; any && n > l->s_min; n--) {
        any = 0;
        for (int32_t c = 0; c < l->channels; c++) {
            const int32_t theta = l->theta[c], half = l->rounding == QB_ROUND ? theta / 2 : 0;
            const int32_t fires = v[c] < (l->rounding == QB_TO_ZERO ? 1 - theta : -half);
            v[c] += fires ? theta : 0;
            s[c] = (qb_spike)(s[c] - fires);
            any |= fires;
        }
    }
    for (int32_t c = 0; l->hard && c < l->channels; c++)
        v[c] = s[c] != 0 ? 0 : v[c];
}

/* One step of a layer: v and s are updated from the sums, of which that of channel c at position p is
 * sum[c * along + p * across]. */
static inline void qb_neurons(int32_t *QB_RESTRICT v, qb_spike *QB_RESTRICT s, const int32_t *QB_RESTRICT sum,
                              int32_t along, int32_t across, const struct qb_layer *l, uint32_t *overflows)
{
    const int small = qb_small(v, sum, l);
    for (int32_t p = 0; p < l->positions; p++, v += l->channels, s += l->channels, sum += across) {
        if (small)
            for (int32_t c = 0; c < l->channels; c++)
                v[c] = qb_leaked(v[c], l->leak, l->amount) + sum[c * along] + l->bias[c];
        else
            for (int32_t c = 0; c < l->channels; c++)
                v[c] = qb_fit(qb_leaked(v[c], l->leak, l->amount), (int64_t)sum[c * along] + l->bias[c], overflows);
        qb_fire(v, s, l);
    }
}

/* One window at all channels: its sum, or its maximum over the positions inside the map. */
static inline void qb_window(qb_spike *QB_RESTRICT out, const qb_spike *QB_RESTRICT map, const struct qb_pool *w,
                             int32_t top, int32_t left)
{
    int first = 1;
    for (int32_t y = top; y < top + w->kernel_rows; y++)
        for (int32_t x = left; x < left + w->kernel_columns; x++) {
            if (y < 0 || y >= w->rows || x < 0 || x >= w->columns)
                continue;
            const qb_spike *s = map + (y * w->columns + x) * w->channels;
            for (int32_t c = 0; c < w->channels; c++) {
                const qb_spike most = s[c] > out[c] ? s[c] : out[c], sum = (qb_spike)(out[c] + s[c]);
                out[c] = first ? s[c] : w->maximum ? most : sum;
            }
            first = 0;
        }
}

static inline void qb_pool(qb_spike *out, const qb_spike *s, const struct qb_pool *w)
{
    for (int32_t y = 0; y < w->out_rows; y++)
        for (int32_t x = 0; x < w->out_columns; x++, out += w->channels)
            qb_window(out, s, w, y * w->down - w->pad_rows, x * w->right - w->pad_columns);
}
