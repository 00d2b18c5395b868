// The commands' works on a CUDA device; the only source of cts that the CUDA compiler sees.

#include "ask_work.hpp"
#include "backends.hpp"
#include "classify_work.hpp"
#include "core_tokensets/tensor/cuda.hpp"
#include "model_works.hpp"
#include "sequence_work.hpp"

namespace cts_command {

template <class Work>
void on_cuda(const Work& work) {
  core_tokensets::require(core_tokensets::cuda::device_count() > 0, "--backend cuda: ", cuda_device());
  core_tokensets::cuda_backend<float> b;
  work(b);
}

std::string cuda_device() { return core_tokensets::cuda::describe(); }

template void on_cuda(const predict_work&);
template void on_cuda(const backward_work&);
template void on_cuda(const attribute_work&);
template void on_cuda(const sequence_work&);
template void on_cuda(const text_sequence_work&);
template void on_cuda(const classify_work&);
template void on_cuda(const ask_work&);

}  // namespace cts_command
