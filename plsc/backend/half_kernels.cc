// Kernels of float16 and bfloat16 on CPUs: each converts its inputs to float32, runs Paddle's own kernel for float32 and
// rounds its results to the nearest. So a program computes what kernels compute that accumulate in float32 and round
// once. half_kernels.py says what for.
//
// Operations that Paddle's header of DenseTensor offers are its library's; a DenseTensor made here has room for more
// than the header says, since the library may have been built with oneDNN and the header knows nothing of it.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "paddle/phi/backends/cpu/cpu_context.h"
#include "paddle/phi/core/dense_tensor.h"
#include "paddle/phi/core/kernel_factory.h"
#include "paddle/phi/core/kernel_context.h"

namespace {

using phi::DataType;
using phi::DenseTensor;

// A kernel, and a bit for each result that stays float32: statistics, and gradients of a normalization's parameters.
// Not here are casts, and sums, which have a type of their own.
struct Operation {
  const char* name;
  uint64_t single;
};

constexpr uint64_t kAllButFirst = ~uint64_t{1};
constexpr Operation kOperations[] = {
    {"abs", 0}, {"abs_grad", 0}, {"add", 0}, {"add_grad", 0}, {"add_n", 0}, {"add_n_grad", 0},
    {"batch_norm", kAllButFirst}, {"batch_norm_grad", kAllButFirst}, {"clip", 0}, {"clip_grad", 0}, {"concat", 0},
    {"concat_grad", 0}, {"conv2d", 0}, {"conv2d_grad", 0}, {"depthwise_conv2d", 0}, {"depthwise_conv2d_grad", 0},
    {"divide", 0}, {"divide_grad", 0}, {"dropout", 0}, {"dropout_grad", 0}, {"elu", 0}, {"elu_grad", 0}, {"exp", 0},
    {"exp_grad", 0}, {"expand", 0}, {"expand_grad", 0}, {"flatten", 0}, {"flatten_grad", 0}, {"flatten2", 0},
    {"flatten2_grad", 0}, {"gather", 0}, {"gather_grad", 0}, {"gelu", 0}, {"gelu_grad", 0},
    {"group_norm", kAllButFirst}, {"group_norm_grad", kAllButFirst}, {"hardsigmoid", 0}, {"hardsigmoid_grad", 0},
    {"hardswish", 0}, {"hardswish_grad", 0}, {"instance_norm", kAllButFirst}, {"instance_norm_grad", kAllButFirst},
    {"layer_norm", kAllButFirst}, {"layer_norm_grad", kAllButFirst}, {"leaky_relu", 0}, {"leaky_relu_grad", 0},
    {"log", 0}, {"log_grad", 0}, {"log_softmax", 0}, {"log_softmax_grad", 0}, {"matmul", 0}, {"matmul_grad", 0},
    {"max", 0}, {"max_grad", 0}, {"maximum", 0}, {"maximum_grad", 0}, {"mean", 0}, {"mean_grad", 0},
    {"mean_all", 0}, {"mean_all_grad", 0}, {"min", 0}, {"min_grad", 0}, {"minimum", 0}, {"minimum_grad", 0},
    {"multiply", 0}, {"multiply_grad", 0}, {"pad", 0}, {"pad_grad", 0}, {"pad3d", 0}, {"pad3d_grad", 0},
    {"pool2d", 0}, {"pool2d_grad", 0}, {"pow", 0}, {"pow_grad", 0}, {"prelu", 0}, {"prelu_grad", 0}, {"relu", 0},
    {"relu_grad", 0}, {"relu6", 0}, {"relu6_grad", 0}, {"reshape", 0}, {"reshape_grad", 0}, {"roll", 0},
    {"roll_grad", 0}, {"rsqrt", 0}, {"rsqrt_grad", 0}, {"scale", 0}, {"scale_grad", 0}, {"sigmoid", 0},
    {"sigmoid_grad", 0}, {"silu", 0}, {"silu_grad", 0}, {"slice", 0}, {"slice_grad", 0}, {"softmax", 0},
    {"softmax_grad", 0}, {"softplus", 0}, {"softplus_grad", 0}, {"split", 0}, {"split_grad", 0}, {"sqrt", 0},
    {"sqrt_grad", 0}, {"square", 0}, {"square_grad", 0}, {"squeeze", 0}, {"squeeze_grad", 0}, {"stack", 0},
    {"stack_grad", 0}, {"strided_slice", 0}, {"strided_slice_grad", 0}, {"subtract", 0}, {"subtract_grad", 0},
    {"swish", 0}, {"swish_grad", 0}, {"take_along_axis", 0},
    {"take_along_axis_grad", 0}, {"tanh", 0}, {"tanh_grad", 0}, {"tile", 0}, {"tile_grad", 0}, {"transpose", 0},
    {"transpose_grad", 0}, {"unsqueeze", 0}, {"unsqueeze_grad", 0}, {"unstack", 0}, {"unstack_grad", 0},
    {"where", 0}, {"where_grad", 0},
};
constexpr size_t kCount = sizeof(kOperations) / sizeof(kOperations[0]);
std::array<phi::Kernel, kCount> originals;
phi::Kernel original_cast;

class Tensor {
 public:
  explicit Tensor(const DenseTensor& other) : tensor_(new (room_) DenseTensor(other)) {}
  Tensor(const Tensor&) = delete;
  ~Tensor() { tensor_->~DenseTensor(); }
  DenseTensor& operator*() { return *tensor_; }

 private:
  alignas(64) char room_[2048];
  DenseTensor* tensor_;
};

bool IsHalf(DataType type) { return type == DataType::FLOAT16 || type == DataType::BFLOAT16; }

float FromHalf(uint16_t bits, DataType type) {
  if (type == DataType::FLOAT16) {
    _Float16 value;
    std::memcpy(&value, &bits, sizeof(value));
    return static_cast<float>(value);
  }
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

// To the nearest, of two equally near to the even one
uint16_t ToHalf(float value, DataType type) {
  uint16_t bits;
  if (type == DataType::FLOAT16) {
    const _Float16 half = static_cast<_Float16>(value);
    std::memcpy(&bits, &half, sizeof(bits));
    return bits;
  }
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof(wide));
  if (value != value) return static_cast<uint16_t>(wide >> 16 | 0x40);
  return static_cast<uint16_t>((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
}

// `tensor` with memory of its own for numbers of `type`, not set yet
void* Renew(const phi::DeviceContext& context, DenseTensor* tensor, DataType type) {
  phi::DenseTensorMeta meta = tensor->meta();
  meta.dtype = type;
  meta.offset = 0;
  tensor->clear();
  tensor->set_meta(meta);
  return context.Alloc(tensor, type);
}

// The numbers of `narrow` in float32, in memory of its own
std::unique_ptr<Tensor> Widened(const phi::DeviceContext& context, const DenseTensor& narrow) {
  auto wide = std::make_unique<Tensor>(narrow);
  const DataType type = narrow.dtype();
  const int64_t count = narrow.numel();
  const auto* from = static_cast<const uint16_t*>(narrow.data());
  auto* to = static_cast<float*>(Renew(context, &**wide, DataType::FLOAT32));
  for (int64_t i = 0; i < count; ++i) to[i] = FromHalf(from[i], type);
  return wide;
}

void Narrow(const phi::DeviceContext& context, DenseTensor* tensor, DataType type) {
  Tensor wide(*tensor);
  const int64_t count = tensor->numel();
  const auto* from = static_cast<const float*>((*wide).data());
  auto* to = static_cast<uint16_t*>(Renew(context, tensor, type));
  for (int64_t i = 0; i < count; ++i) to[i] = ToHalf(from[i], type);
}

// Other operations may read the same inputs at the same time, so that the kernel for float32 gets copies
void Run(phi::KernelContext* given, size_t number, DataType type) {
  auto* context = const_cast<phi::CPUContext*>(&given->GetDeviceContext<phi::CPUContext>());
  const phi::KernelArgsDef& arguments = originals[number].args_def();
  phi::KernelContext single(context);
  std::vector<std::unique_ptr<Tensor>> widened;
  for (const DenseTensor* input : given->InputsBetween<DenseTensor>(0, given->InputsSize())) {
    if (input != nullptr && input->initialized() && IsHalf(input->dtype())) {
      widened.push_back(Widened(*context, *input));
      input = &**widened.back();
    }
    single.EmplaceBackInputWithoutSetRange(input);
  }
  std::vector<DenseTensor*> outputs;
  for (size_t i = 0; i < given->OutputsSize(); ++i) {
    outputs.push_back(given->MutableOutputAt<DenseTensor>(i));
    single.EmplaceBackOutputWithoutSetRange(outputs.back());
  }
  for (size_t i = 0; i < arguments.input_defs().size(); ++i)
    single.AssignInputRange(std::pair<int, int>(given->InputRangeAt(i)), i);
  for (size_t i = 0; i < arguments.output_defs().size(); ++i)
    single.AssignOutputRange(std::pair<int, int>(given->OutputRangeAt(i)), i);
  for (size_t i = 0; i < given->AttrsSize(); ++i) single.EmplaceBackAttr(given->AttrAt(i));
  originals[number](&single);
  for (size_t i = 0; i < outputs.size(); ++i) {
    DenseTensor* tensor = outputs[i];
    const bool stays = kOperations[number].single >> std::min<size_t>(i, 63) & 1;
    if (tensor != nullptr && tensor->initialized() && !stays && tensor->dtype() == DataType::FLOAT32)
      Narrow(*context, tensor, type);
  }
}

template <size_t number>
void Float16(phi::KernelContext* context) {
  Run(context, number, DataType::FLOAT16);
}

template <size_t number>
void BFloat16(phi::KernelContext* context) {
  Run(context, number, DataType::BFLOAT16);
}

// float32 to half precision, rounded to the nearest: Paddle 2.6 rounds towards zero on CPUs
void Cast(phi::KernelContext* context) {
  const DataType type = context->AttrAt<DataType>(0);
  if (!IsHalf(type)) return original_cast(context);
  const auto& x = context->InputAt<DenseTensor>(0);
  auto* out = context->MutableOutputAt<DenseTensor>(0);
  const int64_t count = x.numel();
  const auto* from = static_cast<const float*>(x.data());
  std::vector<uint16_t> made(count);
  for (int64_t i = 0; i < count; ++i) made[i] = ToHalf(from[i], type);
  void* to = context->GetDeviceContext<phi::CPUContext>().Alloc(out, type);
  std::memcpy(to, made.data(), count * sizeof(uint16_t));
}

// What Paddle's eager mode would call, with arguments of any kind; a kernel without it counts as one of another sort
void OfEagerMode() { PADDLE_THROW(phi::errors::Unimplemented("half precision on CPUs is for static programs only")); }

phi::KernelKey Key(DataType type) { return {phi::Backend::CPU, phi::DataLayout::ALL_LAYOUT, type}; }

void Register(const Operation& operation, DataType type, phi::KernelFn run) {
  auto& kernels = phi::KernelFactory::Instance().kernels()[operation.name];
  const auto found = kernels.find(Key(DataType::FLOAT32));
  if (found == kernels.end()) return;
  phi::Kernel made(run, reinterpret_cast<void*>(OfEagerMode));
  *made.mutable_args_def() = found->second.args_def();
  auto* definition = made.mutable_args_def();
  const auto number = &operation - kOperations;
  originals[number] = found->second;
  size_t place = 0;
  for (auto& input : definition->input_defs())
    if (input.dtype == DataType::FLOAT32 && (place++ == 0 || !operation.single)) input.SetDataType(type);
  place = 0;
  for (auto& output : definition->output_defs()) {
    const bool stays = operation.single >> place++ & 1;
    if (output.dtype == DataType::FLOAT32 && !stays) output.SetDataType(type);
  }
  kernels[Key(type)] = made;
}

template <size_t... numbers>
void RegisterAll(std::index_sequence<numbers...>) {
  (Register(kOperations[numbers], DataType::FLOAT16, Float16<numbers>), ...);
  (Register(kOperations[numbers], DataType::BFLOAT16, BFloat16<numbers>), ...);
}

bool RegisterEverything() {
  RegisterAll(std::make_index_sequence<kCount>());
  auto& casts = phi::KernelFactory::Instance().kernels()["cast"];
  original_cast = casts[Key(DataType::FLOAT32)];
  phi::Kernel cast(Cast, reinterpret_cast<void*>(OfEagerMode));
  *cast.mutable_args_def() = original_cast.args_def();
  casts[Key(DataType::FLOAT32)] = cast;
  return true;
}

const bool registered = RegisterEverything();

}  // namespace
