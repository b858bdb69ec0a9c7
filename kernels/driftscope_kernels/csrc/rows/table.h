// The members of RowKernels after the name, in order.
    available,       family_rows,    family_backward_rows, sum_rows,           rms_norm_rows,
    rms_norm_backward_rows, norm_weight_grad_columns, column_sum_columns, swiglu_rows, swiglu_backward_rows,
    rotary_rows,     logprob_tile_rows, logprob_finish_rows, tiled_log_softmax_rows,
    logprob_slope_rows,
