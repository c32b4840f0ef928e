// For tests: kernels for CPUs with the meaning that Paddle's kernels for GPUs have among several ranks. Registered over
// Paddle's own ones for CPUs, which refuse to run (margin_cross_entropy) or are not there (reduce_scatter).
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "paddle/phi/backends/cpu/cpu_context.h"
#include "paddle/phi/core/dense_tensor.h"
#include "paddle/phi/core/distributed/comm_context.h"
#include "paddle/phi/core/distributed/comm_context_manager.h"
#include "paddle/phi/core/kernel_registry.h"

namespace phi {
namespace distributed {
// Paddle's header of this class needs those of Gloo, which the wheels do not have
class GlooCommContext : public CommContext {
 public:
  void AllReduce(DenseTensor* out, const DenseTensor& in, int kind, uint32_t tag = 0);
};
}  // namespace distributed
}  // namespace phi

namespace {

using phi::DenseTensor;
enum Kind { kSum = 0, kMax = 1 };

// Paddle's DenseTensor is larger than its header says where the headers of oneDNN are missing: it gets room
class Tensor {
 public:
  DenseTensor* operator->() { return tensor_; }
  DenseTensor& operator*() { return *tensor_; }
  ~Tensor() { tensor_->~DenseTensor(); }

 private:
  alignas(64) char room_[2048];
  DenseTensor* tensor_ = new (room_) DenseTensor();
};

struct Ranks {
  phi::distributed::GlooCommContext* ring;
  int rank, count;

  Ranks(int ring_id, int rank, int count) : ring(nullptr), rank(rank), count(count) {
    if (count > 1) {
      auto& all = phi::distributed::CommContextManager::GetInstance();
      ring = static_cast<phi::distributed::GlooCommContext*>(all.Get(std::to_string(ring_id)));
    }
  }

  template <typename T, typename Context>
  void Reduce(const Context& context, std::vector<T>* values, Kind kind) const {
    if (count == 1) return;
    Tensor in, out;
    in->Resize({static_cast<int64_t>(values->size())});
    out->Resize({static_cast<int64_t>(values->size())});
    std::copy(values->begin(), values->end(), context.template Alloc<T>(&*in));
    T* reduced = context.template Alloc<T>(&*out);
    ring->AllReduce(&*out, *in, kind);
    std::copy(reduced, reduced + values->size(), values->begin());
  }

  // where the classes of each rank begin, when every rank has so many of its own; the last number is that of all
  template <typename Context>
  std::vector<int> Bounds(const Context& context, int64_t own) const {
    std::vector<int> bounds(count + 1, 0);
    bounds[rank + 1] = static_cast<int>(own);
    Reduce(context, &bounds, kSum);
    for (int i = 1; i <= count; ++i) bounds[i] += bounds[i - 1];
    return bounds;
  }
};

bool TakesAngle(float margin1, float margin2) { return std::fabs(margin1 - 1.0f) > 1e-8 || std::fabs(margin2) > 1e-8; }

template <typename T, typename Context>
void MarginCrossEntropy(const Context& context, const DenseTensor& cosine, const DenseTensor& label, bool, int ring_id,
                        int rank, int count, float margin1, float margin2, float margin3, float scale,
                        DenseTensor* softmax, DenseTensor* loss) {
  const int64_t columns = cosine.dims()[1], rows = cosine.dims()[0];
  const Ranks ranks(ring_id, rank, count);
  const auto bounds = ranks.Bounds(context, columns);
  const int64_t first = bounds[rank];
  const int64_t* labels = label.data<int64_t>();
  T* values = context.template Alloc<T>(softmax);
  std::copy(cosine.data<T>(), cosine.data<T>() + rows * columns, values);
  std::vector<T> largest(rows), total(rows, 0), nll(rows, 0);
  for (int64_t i = 0; i < rows; ++i) {
    T* row = values + i * columns;
    // on a GPU this ends the program
    PADDLE_ENFORCE_EQ(labels[i] >= 0 && labels[i] < bounds[count], true,
                      phi::errors::InvalidArgument("label %d of %d classes", labels[i], bounds[count]));
    const int64_t own = labels[i] - first;
    if (own >= 0 && own < columns) {
      if (TakesAngle(margin1, margin2)) row[own] = std::cos(margin1 * std::acos(row[own]) + margin2);
      row[own] -= margin3;
    }
    for (int64_t j = 0; j < columns; ++j) row[j] *= scale;
    largest[i] = *std::max_element(row, row + columns);
  }
  ranks.Reduce(context, &largest, kMax);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) total[i] += std::exp(values[i * columns + j] -= largest[i]);
  ranks.Reduce(context, &total, kSum);
  for (int64_t i = 0; i < rows; ++i) {
    const T log_total = std::log(total[i]);
    for (int64_t j = 0; j < columns; ++j) {
      T& value = values[i * columns + j];
      value -= log_total;
      if (first + j == labels[i]) nll[i] = -value;
      value = std::exp(value);
    }
  }
  ranks.Reduce(context, &nll, kSum);
  std::copy(nll.begin(), nll.end(), context.template Alloc<T>(loss));
}

template <typename T, typename Context>
void MarginCrossEntropyGrad(const Context& context, const DenseTensor& cosine, const DenseTensor& label,
                            const DenseTensor& softmax, const DenseTensor& dloss, bool, int ring_id, int rank,
                            int count, float margin1, float margin2, float, float scale, DenseTensor* dcosine) {
  const int64_t columns = cosine.dims()[1], rows = cosine.dims()[0];
  const int64_t first = Ranks(ring_id, rank, count).Bounds(context, columns)[rank];
  const int64_t* labels = label.data<int64_t>();
  const T *share = softmax.data<T>(), *x = cosine.data<T>(), *given = dloss.data<T>();
  T* result = context.template Alloc<T>(dcosine);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t k = i * columns + j;
      T slope = share[k];
      if (first + j == labels[i]) {
        slope -= 1;
        if (TakesAngle(margin1, margin2))
          slope *= margin1 * std::sin(margin1 * std::acos(x[k]) + margin2) / std::sqrt(1 - x[k] * x[k]);
      }
      result[k] = slope * given[i] * scale;
    }
}

#ifdef HAS_REDUCE_SCATTER
template <typename T, typename Context>
void ReduceScatter(const Context& context, const DenseTensor& x, int count, DenseTensor* out) {
  auto* ring = static_cast<phi::distributed::GlooCommContext*>(context.GetCommContext());
  Tensor whole;
  whole->Resize(x.dims());
  const T* sums = context.template Alloc<T>(&*whole);
  ring->AllReduce(&*whole, x, kSum);
  auto dims = x.dims();
  dims[0] /= count;
  out->Resize(dims);
  const T* mine = sums + out->numel() * ring->GetRank();
  std::copy(mine, mine + out->numel(), context.template Alloc<T>(out));
}
#endif

}  // namespace

PD_REGISTER_KERNEL(margin_cross_entropy, CPU, ALL_LAYOUT, MarginCrossEntropy, float) {}
PD_REGISTER_KERNEL(margin_cross_entropy_grad, CPU, ALL_LAYOUT, MarginCrossEntropyGrad, float) {}
#ifdef HAS_REDUCE_SCATTER
PD_REGISTER_KERNEL(reduce_scatter, CPU, ALL_LAYOUT, ReduceScatter, float) {}
#endif
