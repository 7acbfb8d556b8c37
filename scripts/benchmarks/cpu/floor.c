/* What no implementation can be quicker than: the row copies and sums of one core's share of a world. */
#include <stdint.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Seconds per repetition of copying rows `index[0..n)` of `from` one after the other. */
double gather(char *to, const char *from, const int64_t *index, int64_t n, int64_t bytes, int repeat) {
    double begin = now();
    for (int r = 0; r < repeat; r++)
        for (int64_t i = 0; i < n; i++)
            memcpy(to + i * bytes, from + index[i] * bytes, bytes);
    return (now() - begin) / repeat;
}

/* Seconds per repetition of publishing tokens * k bf16 rows and adding up the k rows of each token by weight. */
double publish_and_sum(uint16_t *out, uint16_t *window, const uint16_t *rows, const float *weight, int64_t tokens,
                       int64_t k, int64_t hidden, float *sum, int repeat) {
    double begin = now();
    for (int r = 0; r < repeat; r++) {
        memcpy(window, rows, tokens * k * hidden * 2);
        for (int64_t t = 0; t < tokens; t++) {
            memset(sum, 0, hidden * 4);
            for (int64_t j = 0; j < k; j++) {
                const uint16_t *row = window + (t * k + j) * hidden;
                float w = weight[t * k + j];
                for (int64_t i = 0; i < hidden; i++) {
                    union { uint32_t u; float f; } value = {(uint32_t)row[i] << 16};
                    sum[i] += w * value.f;
                }
            }
            for (int64_t i = 0; i < hidden; i++) {
                union { float f; uint32_t u; } value = {sum[i]};
                out[t * hidden + i] = (value.u + 0x7fff + (value.u >> 16 & 1)) >> 16;
            }
        }
    }
    return (now() - begin) / repeat;
}
