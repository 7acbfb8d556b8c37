// Normalisation by the root of the mean square.
//
// Rounding as the kernels of A2 and A3 do it. RmsNorm: all in fp32, one cast at the end (ops-nn,
// norm/rms_norm/op_kernel/rms_norm.h). AddRmsNorm: the sum is rounded to the type of x before the
// norm, and x * rstd once more before gamma (golden of ops-nn,
// norm/add_rms_norm/tests/assets/golden.py).
#include "operator.h"

namespace standin {
namespace {

// 1 / sqrt(mean of squares + epsilon) over the dimensions of gamma, shaped to broadcast over x.
Tensor InverseRoot(const Tensor& x, const Tensor& gamma, double epsilon) {
    std::vector<int64_t> dims;
    for (int64_t d = x.dim() - gamma.dim(); d < x.dim(); ++d) dims.push_back(d);
    return (x.square().mean(dims, /*keepdim=*/true) + epsilon).rsqrt();
}

void CheckGamma(const Tensor& x, const Tensor& gamma) {
    const bool fits = x.dim() >= gamma.dim() && gamma.dim() > 0 &&
                      x.sizes().slice(x.dim() - gamma.dim()) == gamma.sizes();
    TORCH_CHECK(fits, "gamma has shape ", gamma.sizes(),
                ", which must be the last dimensions of x, shape ", x.sizes());
}

Work RmsNorm(const Tensor& x, const Tensor& gamma, double epsilon, const Tensor& y,
             const Tensor& rstd) {
    CheckGamma(x, gamma);
    return [=] {
        const Tensor values = Float(x);
        const Tensor inverse = InverseRoot(values, gamma, epsilon);
        y.copy_(values * inverse * Float(gamma));
        rstd.copy_(inverse.view(rstd.sizes()));
    };
}

Work AddRmsNorm(const Tensor& x1, const Tensor& x2, const Tensor& gamma, double epsilon,
                const Tensor& y, const Tensor& rstd, const Tensor& x) {
    CheckGamma(x1, gamma);
    TORCH_CHECK(x1.sizes() == x2.sizes() && x1.scalar_type() == x2.scalar_type(), "x1 ", x1.sizes(),
                " and x2 ", x2.sizes(), " must have one shape and type");
    return [=] {
        x.copy_(Float(x1) + Float(x2));
        const Tensor values = Float(x);
        const Tensor inverse = InverseRoot(values, gamma, epsilon);
        const Tensor normalised = (values * inverse).to(x.scalar_type());
        y.copy_(Float(normalised) * Float(gamma));
        rstd.copy_(inverse.view(rstd.sizes()));
    };
}

}  // namespace
}  // namespace standin

using standin::Handle;

ACLNN(aclnnRmsNorm, (Handle x, Handle gamma, double epsilon, Handle y, Handle rstd), RmsNorm, x,
      gamma, epsilon, y, rstd)
ACLNN(aclnnAddRmsNorm,
      (Handle x1, Handle x2, Handle gamma, double epsilon, Handle y, Handle rstd, Handle x),
      AddRmsNorm, x1, x2, gamma, epsilon, y, rstd, x)
