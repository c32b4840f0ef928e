// Operations on sampled class centres for CPUs: each makes one pass over its rows, with all threads.
// Weight and velocity of class c are rows 2 c and 2 c + 1 of Table [2 L, E]; with Adam, weight and both moments are rows
// 3 c to 3 c + 2 of Table [3 L, E]. row_kernels.py documents the formulas.
#include <algorithm>
#include <cmath>
#include <vector>

#include "paddle/phi/api/all.h"

namespace {

using paddle::Tensor;

constexpr int64_t kAhead = 2;  // rows to prefetch ahead
constexpr int64_t kPair = 2, kTriple = 3;  // arrays with a row for each class, side by side
constexpr int64_t kRun = 64;  // numbers whose divisions are summed at a time

// The rows of class index[row], `count` of them; prefetches those of the class `kAhead` rows later.
template <int64_t count, int for_writing, typename Number>
Number* Rows(Number* table, const int64_t* index, int64_t row, int64_t rows, int64_t size) {
  if (row + kAhead < rows) {
    const char* later = reinterpret_cast<const char*>(table + index[row + kAhead] * count * size);
    const int64_t bytes = count * size * sizeof(Number);
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(later + byte, for_writing);
  }
  return table + index[row] * count * size;
}

void CheckRows(const Tensor& table, const Tensor& index, int64_t count) {
  const int64_t rows = index.shape()[0], classes = table.shape()[0] / count;
  const int64_t* places = index.data<int64_t>();
  bool inside = true;
  for (int64_t row = 0; row < rows; ++row) inside &= places[row] >= 0 && places[row] < classes;
  // Paddle 3 loses the text; any other exception would silently end the process
  PD_CHECK(inside, "a row of a sample is not in the shard of ", classes, " classes");
}

std::vector<Tensor> BringRows(const Tensor& table, const Tensor& index, const Tensor& factors) {
  CheckRows(table, index, kPair);
  const int64_t rows = index.shape()[0], size = table.shape()[1];
  Tensor brought = paddle::empty({rows, size}, paddle::DataType::FLOAT32, paddle::CPUPlace());
  Tensor squares = paddle::empty({rows, 1}, paddle::DataType::FLOAT32, paddle::CPUPlace());
  const float *stored = table.data<float>(), *factor = factors.data<float>();
  const int64_t* places = index.data<int64_t>();
  float *out = brought.data<float>(), *square = squares.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    const float* weight = Rows<kPair, 0>(stored, places, row, rows, size);
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
  CheckRows(table, index, kPair);
  const int64_t rows = index.shape()[0], size = table.shape()[1];
  const float *step = steps.data<float>(), *change = gradient.data<float>(), learning_rate = rate.data<float>()[0];
  const int64_t* places = index.data<int64_t>();
  float* stored = table.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* weight = Rows<kPair, 1>(stored, places, row, rows, size);
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

// For `count` numbers: now = keep * weight - first * sum_q share[q] / (scale[q] * sqrt(second) + epsilon).
void BringNumbers(const float* weight, const float* first, const float* second, float keep, const float* scale,
                  const float* share, int64_t nodes, float epsilon, int64_t count, float* now) {
  float root[kRun], total[kRun];
#pragma omp simd
  for (int64_t place = 0; place < count; ++place) {
    root[place] = std::sqrt(second[place]);
    total[place] = 0.0f;
  }
  for (int64_t node = 0; node < nodes; ++node) {
    const float of_root = scale[node], over = share[node];
#pragma omp simd
    for (int64_t place = 0; place < count; ++place) total[place] += over / (of_root * root[place] + epsilon);
  }
#pragma omp simd
  for (int64_t place = 0; place < count; ++place) now[place] = keep * weight[place] - first[place] * total[place];
}

std::vector<Tensor> BringAdamRows(const Tensor& table, const Tensor& index, const Tensor& factors,
                                  const Tensor& constants) {
  CheckRows(table, index, kTriple);
  const int64_t rows = index.shape()[0], size = table.shape()[1];
  const int64_t nodes = constants.shape()[0] - 1, width = factors.shape()[1];
  PD_CHECK(width == 5 + nodes, "factors of ", width, " numbers for ", nodes, " nodes");
  Tensor brought = paddle::empty({rows, size}, paddle::DataType::FLOAT32, paddle::CPUPlace());
  Tensor squares = paddle::empty({rows, 1}, paddle::DataType::FLOAT32, paddle::CPUPlace());
  const float *stored = table.data<float>(), *factor = factors.data<float>(), *points = constants.data<float>() + 1;
  const float epsilon = constants.data<float>()[0];
  const int64_t* places = index.data<int64_t>();
  float *out = brought.data<float>(), *square = squares.data<float>();
#pragma omp parallel
  {
    std::vector<float> scale(nodes);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* weight = Rows<kTriple, 0>(stored, places, row, rows, size);
      const float* of_row = factor + row * width;
      const float keep = of_row[2], centre = of_row[3], half = of_row[4];
      const int64_t used = half == 0.0f ? 0 : nodes;  // a row that has missed nothing has no interval
      for (int64_t node = 0; node < used; ++node) scale[node] = std::exp(centre + half * points[node]);
      float *now = out + row * size, sum = 0.0f;
      for (int64_t begin = 0; begin < size; begin += kRun) {
        const int64_t count = std::min(kRun, size - begin);
        const float* numbers = weight + begin;
        BringNumbers(numbers, numbers + size, numbers + 2 * size, keep, scale.data(), of_row + 5, used, epsilon, count,
                     now + begin);
      }
#pragma omp simd reduction(+ : sum)
      for (int64_t place = 0; place < size; ++place) sum += now[place] * now[place];
      square[row] = sum;
    }
  }
  return {brought, squares};
}

void MoveAdamRows(Tensor& table, const Tensor& index, const Tensor& now, const Tensor& factors,
                  const Tensor& gradient, const Tensor& step) {
  CheckRows(table, index, kTriple);
  const int64_t rows = index.shape()[0], size = table.shape()[1];
  const float *brought = now.data<float>(), *factor = factors.data<float>();
  const float *change = gradient.data<float>(), *number = step.data<float>();
  const float beta1 = number[0], rest1 = number[1], beta2 = number[2], rest2 = number[3], epsilon = number[4];
  const float decay = number[5], rate = number[6], unbias1 = number[7], unbias2 = number[8];
  const int64_t* places = index.data<int64_t>();
  float* stored = table.data<float>();
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < rows; ++row) {
    float* weight = Rows<kTriple, 1>(stored, places, row, rows, size);
    float *first = weight + size, *second = weight + 2 * size;
    const float keep1 = beta1 * factor[3 * row], keep2 = beta2 * factor[3 * row + 1], along = factor[3 * row + 2];
    const float *old = brought + row * size, *of_row = change + row * size;
#pragma omp simd
    for (int64_t place = 0; place < size; ++place) {
      const float w = old[place], g = of_row[place] - along * w;
      const float m = keep1 * first[place] + rest1 * g, v = keep2 * second[place] + rest2 * (g * g);
      weight[place] = w - rate * (m * unbias1 / (std::sqrt(v * unbias2) + epsilon) + decay * w);
      first[place] = m;
      second[place] = v;
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

std::vector<Shape> AdamShapes(const Shape& table, const Shape& index, const Shape&, const Shape&) {
  return {{index[0], table[1]}, {index[0], 1}};
}

std::vector<paddle::DataType> AdamTypes(const paddle::DataType& table, paddle::DataType, paddle::DataType,
                                        paddle::DataType) {
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

PD_BUILD_OP(plsc_bring_adam_rows)
    .Inputs({"Table", "Index", "Factors", "Constants"})
    .Outputs({"Rows", "Squares"})
    .SetKernelFn(PD_KERNEL(BringAdamRows))
    .SetInferShapeFn(PD_INFER_SHAPE(AdamShapes))
    .SetInferDtypeFn(PD_INFER_DTYPE(AdamTypes));

PD_BUILD_OP(plsc_move_adam_rows)
    .Inputs({"Table", "Index", "Now", "Factors", "Gradient", "Step"})
    .Outputs({"Moved"})
    .SetInplaceMap({{"Table", "Moved"}})
    .SetKernelFn(PD_KERNEL(MoveAdamRows));
