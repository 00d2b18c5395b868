// Names a header of each kind and instantiates almost nothing: the build is what is tested.
#include <core_tokensets/core/random.hpp>
#include <core_tokensets/core_tokensets.hpp>

int main() { return core_tokensets::random_stream(1).below(1) == 0 ? 0 : 1; }
