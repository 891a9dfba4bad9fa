/* Floor 4: from rewards to advantages, group by group. Rewards are double; NaN = this function gave no reward.

   SUM_THEN_NORMALIZE   r = sum_k w_k r_k over the functions that scored, A = (r - group mean) / (std + 1e-4);
                        std by `scale`: of the group, of the whole batch, or no division at all.
   NORMALIZE_THEN_SUM   (GDPO) z_k = (r_k - group mean) / (group std + 1e-4) per function, R = sum_k w_k z_k,
                        A = (R - batch mean) / (batch std + 1e-4); `scale` has no say.

   std is unbiased (n - 1). A completion that no function scored is left out of every mean and std and gets A = 0,
   and so does one whose std has no other member. Equal rewards give exactly 0: means are relative to the first one. */
#ifndef GRPO_ADVANTAGE_H
#define GRPO_ADVANTAGE_H

#include <stdint.h>

enum advantage_scale { SCALE_GROUP, SCALE_BATCH, SCALE_NONE, ADVANTAGE_SCALES };
enum reward_aggregation { SUM_THEN_NORMALIZE, NORMALIZE_THEN_SUM, REWARD_AGGREGATIONS };
extern const char *const advantage_scale_names[], *const reward_aggregation_names[];

/* advantage (n) = of rewards (n, n_functions) with weights (n_functions); group g has sizes[g] rows in a row, n in all.
   E_CONFIG on a group of fewer than two; E_NONFINITE names the row of an infinite reward, or of
   one whose advantage no float holds; E_MEMORY. */
int group_advantages(float *advantage, const double *rewards, const double *weights, const int32_t *sizes, int n_groups,
                     int n_functions, enum advantage_scale scale, enum reward_aggregation aggregation);

#endif
