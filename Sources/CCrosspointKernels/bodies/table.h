// Assembles a variant's table from the bodies. Included last; VARIANT_TABLE and VARIANT_NAME are set by the variant.
const xp_kernels VARIANT_TABLE = {
    .name = VARIANT_NAME,
    .scale = scale,
    .axpy = axpy,
    .axpy_difference = axpy_difference,
    .dot = dot,
    .dot_difference = dot_difference,
    .squared_distance = squared_distance,
    .first_nonfinite = first_nonfinite,
};
