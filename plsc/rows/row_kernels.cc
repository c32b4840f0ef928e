// Operations on sampled class centres for CPUs: each makes one pass over its rows, with all threads.
// Weight and velocity of class c are rows 2 c and 2 c + 1 of Table [2 L, E]. row_kernels.py documents the formulas.
#include "paddle/phi/api/all.h"

namespace {

using paddle::Tensor;

constexpr int64_t kAhead = 2;  // rows to prefetch ahead

// The pair of class centre and velocity of class index[row]; prefetches the one `kAhead` rows later.
template <int for_writing, typename Number>
Number* Pair(Number* table, const int64_t* index, int64_t row, int64_t rows, int64_t size) {
  if (row + kAhead < rows) {
    const char* later = reinterpret_cast<const char*>(table + index[row + kAhead] * 2 * size);
    const int64_t bytes = 2 * size * sizeof(Number);
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(later + byte, for_writing);
  }
  return table + index[row] * 2 * size;
}

void CheckRows(const Tensor& table, const Tensor& index) {
  const int64_t rows = index.shape()[0], classes = table.shape()[0] / 2;
  const int64_t* places = index.data<int64_t>();
  bool inside = true;
  for (int64_t row = 0; row < rows; ++row) inside &= places[row] >= 0 && places[row] < classes;
  // Paddle 3 loses the text; any other exception would silently end the process
  PD_CHECK(inside, "a row of a sample is not in the shard of ", classes, " classes");
}

std::vector<Tensor> BringRows(const Tensor& table, const Tensor& index, const Tensor& factors) {
  CheckRows(table, index);
  const int64_t rows = index.shape()[0], size = table.shape()[1];
  Tensor brought = paddle::empty({rows, size}, paddle::DataType::FLOAT32, paddle::CPUPlace());
  Tensor squares = paddle::empty({rows, 1}, paddle::DataType::FLOAT32, paddle::CPUPlace());
  const float *stored = table.data<float>(), *factor = factors.data<float>();
  const int64_t* places = index.data<int64_t>();
  float *out = brought.data<float>(), *square = squares.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* weight = Pair<0>(stored, places, row, rows, size);
    const float* velocity = weight + size;
    const float of_weight = factor[2 * row], of_velocity = factor[2 * row + 1];
    float* now = out + row * size;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t place = 0; place < size; ++place) {
      now[place] = of_weight * weight[place] + of_velocity * velocity[place];
      sum += now[place] * now[place];
    }
    square[row] = sum;
  }
  return {brought, squares};
}

void MoveRows(Tensor& table, const Tensor& index, const Tensor& steps, const Tensor& gradient, const Tensor& rate) {
  CheckRows(table, index);
  const int64_t rows = index.shape()[0], size = table.shape()[1];
  const float *step = steps.data<float>(), *change = gradient.data<float>(), learning_rate = rate.data<float>()[0];
  const int64_t* places = index.data<int64_t>();
  float* stored = table.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* weight = Pair<1>(stored, places, row, rows, size);
    float* velocity = weight + size;
    const float ww = step[4 * row], wv = step[4 * row + 1], vw = step[4 * row + 2], vv = step[4 * row + 3];
    const float* of_row = change + row * size;
#pragma omp simd
    for (int64_t place = 0; place < size; ++place) {
      const float w = weight[place], v = velocity[place], g = of_row[place];
      weight[place] = ww * w + wv * v - learning_rate * g;
      velocity[place] = vw * w + vv * v + g;
    }
  }
}

using Shape = std::vector<int64_t>;

std::vector<Shape> BroughtShapes(const Shape& table, const Shape& index, const Shape&) {
  return {{index[0], table[1]}, {index[0], 1}};
}

std::vector<paddle::DataType> BroughtTypes(const paddle::DataType& table, paddle::DataType, paddle::DataType) {
  return {table, table};
}

}  // namespace

PD_BUILD_OP(plsc_bring_rows)
    .Inputs({"Table", "Index", "Factors"})
    .Outputs({"Rows", "Squares"})
    .SetKernelFn(PD_KERNEL(BringRows))
    .SetInferShapeFn(PD_INFER_SHAPE(BroughtShapes))
    .SetInferDtypeFn(PD_INFER_DTYPE(BroughtTypes));

PD_BUILD_OP(plsc_move_rows)
    .Inputs({"Table", "Index", "Steps", "Gradient", "Rate"})
    .Outputs({"Moved"})
    .SetInplaceMap({{"Table", "Moved"}})
    .SetKernelFn(PD_KERNEL(MoveRows));
