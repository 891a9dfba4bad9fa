/* EACH(f, a, b, c): f(a) f(b) f(c), for up to 12 arguments. */
#ifndef GRPO_EACH_H
#define GRPO_EACH_H

#define EACH(f, ...)                                                                                             \
    EACH_COUNTED(__VA_ARGS__, EACH_12, EACH_11, EACH_10, EACH_9, EACH_8, EACH_7, EACH_6, EACH_5, EACH_4, EACH_3, \
                 EACH_2, EACH_1, )(f, __VA_ARGS__)
#define EACH_COUNTED(a, b, c, d, e, f, g, h, i, j, k, l, name, ...) name
#define EACH_1(f, a) f(a)
#define EACH_2(f, a, ...) f(a) EACH_1(f, __VA_ARGS__)
#define EACH_3(f, a, ...) f(a) EACH_2(f, __VA_ARGS__)
#define EACH_4(f, a, ...) f(a) EACH_3(f, __VA_ARGS__)
#define EACH_5(f, a, ...) f(a) EACH_4(f, __VA_ARGS__)
#define EACH_6(f, a, ...) f(a) EACH_5(f, __VA_ARGS__)
#define EACH_7(f, a, ...) f(a) EACH_6(f, __VA_ARGS__)
#define EACH_8(f, a, ...) f(a) EACH_7(f, __VA_ARGS__)
#define EACH_9(f, a, ...) f(a) EACH_8(f, __VA_ARGS__)
#define EACH_10(f, a, ...) f(a) EACH_9(f, __VA_ARGS__)
#define EACH_11(f, a, ...) f(a) EACH_10(f, __VA_ARGS__)
#define EACH_12(f, a, ...) f(a) EACH_11(f, __VA_ARGS__)

#endif
