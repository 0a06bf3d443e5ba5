/* Runs the network of qbsnn_net.h on test vectors and prints what every layer does.
 *
 *     cc -std=c99 -Wall -Wextra -Werror -pedantic -O2 main.c -o qbsnn && ./qbsnn < current.txt | cmp - expected.txt
 *
 * With -O3 -march=native -funroll-loops -DQBSNN_MULTIPLY in place of -O2 the loops over channels become vector
 * instructions; the output is the same.
 *
 * Input: the number of samples, the number of steps with a current of their own (1 or QBSNN_STEPS), then the currents,
 * sample by sample and step by step. This file is for a machine with stdio; on a microcontroller call qbsnn_reset once
 * per sample, qbsnn_step QBSNN_STEPS times, and read qbsnn_class; or call qbsnn_decide, if there is one. Exit code: 1
 * if a membrane left its register under the policy "error", 2 if the input is no such list of numbers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QBSNN_TAPS
#include "qbsnn_net.h"

static int32_t current[QBSNN_STEPS * QBSNN_INPUTS];

static int read_number(int32_t *number)
{
    char word[13], *end = word; /* one more than the longest number */
    if (scanf("%12s", word) != 1) {
        fputs("error: the input ends early\n", stderr);
        return 0;
    }
    const long long value = strtoll(word, &end, 10);
    if (*end != '\0' || strlen(word) > 11 || value < INT32_MIN || value > INT32_MAX) {
        fprintf(stderr, "error: the input must be whole numbers of 32 bits, got %s\n", word);
        return 0;
    }
    *number = (int32_t)value;
    return 1;
}

static void print_line(const char *what, int32_t sample, int32_t step, const struct qbsnn_tap *tap)
{
    printf("%s %" PRId32 " %" PRId32 " %s:", what, sample, step, tap->name);
    for (int32_t c = 0; c < tap->channels; c++)
        for (int32_t i = c; i < tap->size; i += tap->channels)
            printf(" %" PRId32, what[0] == 's' ? (int32_t)tap->spikes[i] : tap->membranes[i]);
    putchar('\n');
}

int main(void)
{
    int32_t samples, steps;
    if (!read_number(&samples) || !read_number(&steps))
        return 2;
    if (samples < 0 || (steps != 1 && steps != QBSNN_STEPS)) {
        fprintf(stderr, "error: samples must not be negative and steps must be 1 or %d\n", QBSNN_STEPS);
        return 2;
    }
    for (int32_t sample = 0; sample < samples; sample++) {
        for (int32_t i = 0; i < steps * QBSNN_INPUTS; i++)
            if (!read_number(&current[i]))
                return 2;
        qbsnn_reset();
        for (int32_t t = 0; t < QBSNN_STEPS; t++) {
            qbsnn_step(&current[steps == 1 ? 0 : t * QBSNN_INPUTS]);
            for (int32_t k = 0; k < QBSNN_STAGES; k++) {
                print_line("spikes", sample, t, &qbsnn_taps[k]);
                print_line("membrane", sample, t, &qbsnn_taps[k]);
            }
        }
        printf("logits %" PRId32 ":", sample);
        for (int32_t k = 0; k < QBSNN_CLASSES; k++)
            printf(" %" PRId32, qbsnn_logits[k]);
        printf("\nclass %" PRId32 ": %" PRId32 "\n", sample, qbsnn_class());
#ifdef QBSNN_EARLY_EXIT
        uint32_t counted = qbsnn_overflows;
        int32_t taken, label = qbsnn_decide(current, steps == 1 ? 0 : QBSNN_INPUTS, &taken);
        qbsnn_overflows = counted; /* of the same steps, which ran above */
        printf("exit %" PRId32 ": %" PRId32 " %" PRId32 "\n", sample, taken, label);
#endif
    }
    char more;
    if (scanf(" %c", &more) == 1) {
        fprintf(stderr, "error: the input goes on behind %" PRId32 " samples of %d numbers\n", samples,
                (int)(steps * QBSNN_INPUTS));
        return 2;
    }
    printf("overflows: %" PRIu32 "\n", qbsnn_overflows);
    return QBSNN_OVERFLOW == QB_ERROR && qbsnn_overflows > 0;
}
