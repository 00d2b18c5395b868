#pragma once
// Ranks that are processes of MPI, of any make. Needs the target core_tokensets::mpi, so core_tokensets.hpp does not
// include it.

#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core_tokensets/core/communicator.hpp"
#include "core_tokensets/core/error.hpp"

namespace core_tokensets {

/// The processes of an MPI communicator. MPI is initialised where nobody has done so, and then finalised with the last
/// copy. `Error` where a rank has left, where the process of one on this machine has ended, or where MPI fails. Of
/// ranks on other machines mpirun sees to it: where a process ends badly it ends all. What is destroyed by an exception
/// leaves. One thread at a time.
class mpi {
 public:
  /// All ranks of `of` make one together.
  explicit mpi(MPI_Comm of = MPI_COMM_WORLD) : link_(std::make_shared<link>(of)) {}

  int rank() const { return link_->rank; }
  int size() const { return link_->size; }
  template <class T>
  void all_reduce(std::span<T> values) {
    constexpr std::size_t block = std::size_t{1} << 22;  // what is copied and sent at a time
    for (std::size_t begin = 0; begin < values.size(); begin += block)
      link_->reduce(values.subspan(begin, std::min(block, values.size() - begin)));
  }
  void broadcast(std::span<std::byte> bytes, int root) { link_->broadcast(bytes, root); }
  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> own) { return link_->gather(own); }
  void leave(const std::string& reason) { link_->leave(reason); }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr int data_tag = 1, leave_tag = 2;

  /// A process by what tells it from all others; `machine` also tells which numbers of processes are of one kind.
  struct process {
    std::size_t machine = 0;
    long number = 0;

    static process own() {
      char name[256] = {}, space[256] = {};
      ::gethostname(name, sizeof name - 1);
      if (::readlink("/proc/self/ns/pid", space, sizeof space - 1) < 0) space[0] = 0;
      std::string started;  // machines may have the same name
      std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), started);
      return {std::hash<std::string>()(started + "/" + name + "/" + space), ::getpid()};
    }
    /// False for one of this machine that is there no more, or waits for whoever started it to notice its end.
    bool lives() const {
      if (::kill(static_cast<pid_t>(number), 0) != 0 && errno == ESRCH) return false;
      std::ifstream file("/proc/" + std::to_string(number) + "/stat");
      std::string text;
      std::getline(file, text);
      const auto name_ends = text.rfind(')');
      return name_ends == text.npos || name_ends + 2 >= text.size() ||
             (text[name_ends + 2] != 'Z' && text[name_ends + 2] != 'X');
    }
  };

  /// What copies share. Messages between two ranks arrive in their order, so those of one call after the other need
  /// nothing that tells them apart.
  struct link {
    MPI_Comm comm = MPI_COMM_NULL;
    int rank = 0, size = 1;
    bool begun_here = false, over = false;
    std::vector<process> processes;    ///< [size]
    std::vector<char> said_goodbye;    ///< [size]
    std::vector<MPI_Request> waiting;  ///< receives, then sends
    std::size_t receives = 0;
    std::vector<std::byte> out, in;
    clock::time_point looked = clock::now();
    int exceptions = std::uncaught_exceptions();

    explicit link(MPI_Comm of) {
      int begun = 0, ended = 0;
      MPI_Initialized(&begun);
      MPI_Finalized(&ended);
      require(ended == 0, "MPI has ended, with the last copy of what began it; keep one for the whole program");
      if (begun == 0) {
        int provided = 0;
        check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
        begun_here = true;
      }
      check(MPI_Comm_dup(of, &comm));
      MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
      MPI_Comm_rank(comm, &rank);
      MPI_Comm_size(comm, &size);
      processes.resize(static_cast<std::size_t>(size));
      said_goodbye.resize(static_cast<std::size_t>(size));
      const process own = process::own();
      check(MPI_Allgather(&own, sizeof own, MPI_BYTE, processes.data(), sizeof own, MPI_BYTE, comm));
    }
    link(const link&) = delete;
    link& operator=(const link&) = delete;
    ~link() {
      if (std::uncaught_exceptions() > exceptions) leave("an exception");
      if (!over) try {  // so that one that left, or goes on, is seen before MPI waits for it for ever
          for (const auto& call : gather({})) {
            if (!call.empty()) leave("it makes no further call");
          }
        } catch (const std::exception& e) {
          std::fprintf(stderr, "rank %d of %d: %s, noticed at the end\n", rank, size, e.what());
        }
      if (over && !all_said_goodbye()) return;  // MPI would wait for those that are gone
      MPI_Comm_free(&comm);
      if (begun_here) MPI_Finalize();
    }

    static void check(int code) {
      if (code == MPI_SUCCESS) return;
      char text[MPI_MAX_ERROR_STRING] = {};
      int length = 0;
      MPI_Error_string(code, text, &length);
      fail("MPI: ", text);
    }

    template <class Call>
    void for_others(const Call& call) const {
      for (int r = 0; r < size; ++r) {
        if (r != rank) call(r);
      }
    }
    void send(const std::byte* from, std::size_t bytes, int to, int tag = data_tag) {
      if (bytes > 0) check(MPI_Isend(from, static_cast<int>(bytes), MPI_BYTE, to, tag, comm, &waiting.emplace_back()));
    }
    void receive(std::byte* to, std::size_t bytes, int from) {
      if (bytes == 0) return;
      check(MPI_Irecv(to, static_cast<int>(bytes), MPI_BYTE, from, data_tag, comm, &waiting.emplace_back()));
      ++receives;
    }

    bool all_done() {
      int done = 0;
      check(MPI_Testall(static_cast<int>(waiting.size()), waiting.data(), &done, MPI_STATUSES_IGNORE));
      return done != 0;
    }

    /// Returns when all that was begun is done. Others may take as long as they want: nothing is concluded from time.
    void wait() {
      const auto start = clock::now();
      while (!all_done()) {
        const auto now = clock::now();
        if (now - looked > std::chrono::milliseconds(20)) look();
        if (now - start < std::chrono::milliseconds(1)) {
          std::this_thread::yield();
        } else {
          std::this_thread::sleep_for(std::chrono::microseconds(50));
        }
      }
      waiting.clear(), receives = 0;
    }

    bool lives(int r) const {
      const process &own = processes[static_cast<std::size_t>(rank)], &other = processes[static_cast<std::size_t>(r)];
      return other.machine != own.machine || other.lives();
    }

    /// `Error` where what is waited for does not come: a rank has left, or its process has ended.
    void look() {
      looked = clock::now();
      hear();
      for_others([&](int r) {
        if (lives(r)) return;
        hear();  // it may have said why
        if (!all_done())
          fail("rank ", r, " is gone: its process ", processes[static_cast<std::size_t>(r)].number, " has ended");
      });
    }
    /// `Error` where a rank says that it leaves.
    void hear() {
      for (int there = 1; there != 0;) {
        MPI_Status status;
        check(MPI_Iprobe(MPI_ANY_SOURCE, leave_tag, comm, &there, &status));
        if (there == 0) return;
        int bytes = 0;
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        std::string reason(static_cast<std::size_t>(bytes), '\0');
        check(MPI_Recv(reason.data(), bytes, MPI_BYTE, status.MPI_SOURCE, leave_tag, comm, MPI_STATUS_IGNORE));
        said_goodbye[static_cast<std::size_t>(status.MPI_SOURCE)] = 1;
        if (!over) fail("rank ", status.MPI_SOURCE, " has ended: ", reason);
      }
    }

    /// Runs a call that all ranks make; after one that failed there is none.
    template <class Call>
    void together(const Call& call) {
      require(!over, "MPI: this rank has left the others, or they are gone");
      try {
        call();
      } catch (const std::exception& e) {
        leave(e.what());
        throw;
      }
    }

    void leave(const std::string& reason) {
      if (over) return;
      over = true;
      // What others may still write to or read from must stay; what they will not is as if it had not been begun.
      auto* const kept = new std::vector<std::byte>[3] {
        std::move(out), std::move(in), {}
      };
      for (std::size_t i = 0; i < receives; ++i) {
        if (waiting[i] != MPI_REQUEST_NULL) MPI_Cancel(&waiting[i]);
      }
      const auto text = std::as_bytes(std::span(reason)).first(std::min<std::size_t>(reason.size(), 2000));
      kept[2].assign(text.begin(), text.end());
      if (kept[2].empty()) kept[2].push_back(std::byte{'?'});
      try {
        for_others([&](int r) { send(kept[2].data(), kept[2].size(), r, leave_tag); });
      } catch (const Error&) {  // one that is gone; the others shall know
      }
    }

    /// Waits a while until all others have left, too, so that MPI can end in order.
    bool all_said_goodbye() {
      const auto start = clock::now();
      try {
        while (clock::now() - start < std::chrono::seconds(2)) {
          hear();
          bool all = all_done(), gone = false;
          for_others([&](int r) {
            const bool said = said_goodbye[static_cast<std::size_t>(r)] != 0;
            all = all && said, gone = gone || (!said && !lives(r));
          });
          if (all || gone) return all;
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      } catch (const Error&) {  // MPI has failed
      }
      return false;
    }

    std::size_t slice(std::size_t n, int r) const {
      return n * static_cast<std::size_t>(r) / static_cast<std::size_t>(size);
    }

    /// Every rank adds up one slice of all ranks' values and hands the sum to all: 2 (size - 1) / size of the values go
    /// out of each rank and into it.
    template <class T>
    void reduce(std::span<T> values) {
      together([&] {
        const std::size_t n = values.size(), begin = slice(n, rank), mine = slice(n, rank + 1) - begin;
        const auto offset = [&](int r) { return slice(n, r) * sizeof(T); };
        const auto bytes = [&](int r) { return (slice(n, r + 1) - slice(n, r)) * sizeof(T); };
        out.resize(values.size_bytes());
        in.resize(static_cast<std::size_t>(size) * mine * sizeof(T));
        std::memcpy(out.data(), values.data(), values.size_bytes());
        std::vector<T*> parts;
        for (int r = 0; r < size; ++r)
          parts.push_back(reinterpret_cast<T*>(in.data()) + static_cast<std::size_t>(r) * mine);
        if (mine > 0) std::memcpy(parts[static_cast<std::size_t>(rank)], values.data() + begin, mine * sizeof(T));
        for_others(
            [&](int r) { receive(reinterpret_cast<std::byte*>(parts[static_cast<std::size_t>(r)]), bytes(rank), r); });
        for_others([&](int r) { send(out.data() + offset(r), bytes(r), r); });
        wait();
        add_in_tree<T>(parts, static_cast<std::ptrdiff_t>(mine));
        for_others([&](int r) { receive(out.data() + offset(r), bytes(r), r); });
        for_others([&](int r) { send(in.data(), bytes(rank), r); });
        if (mine > 0) std::memcpy(out.data() + offset(rank), in.data(), bytes(rank));
        wait();
        std::memcpy(values.data(), out.data(), values.size_bytes());
      });
    }

    void broadcast(std::span<std::byte> bytes, int root) {
      constexpr std::size_t most = std::size_t{1} << 28;
      for (std::size_t begin = 0; begin < bytes.size(); begin += most) {
        const auto part = bytes.subspan(begin, std::min(most, bytes.size() - begin));
        together([&] {
          out.assign(part.begin(), part.end());
          if (rank == root) {
            for_others([&](int r) { send(out.data(), out.size(), r); });
          } else {
            receive(out.data(), out.size(), root);
          }
          wait();
          std::copy(out.begin(), out.end(), part.begin());
        });
      }
    }

    std::vector<std::vector<std::byte>> gather(std::span<const std::byte> own) {
      std::vector<std::vector<std::byte>> all(static_cast<std::size_t>(size));
      together([&] {
        require(own.size() < INT_MAX, "MPI: ", own.size(), " bytes of one rank, expected less than 2 GiB");
        std::vector<std::uint64_t> sizes(static_cast<std::size_t>(size));
        const std::uint64_t mine = own.size();
        exchange(std::as_bytes(std::span(&mine, 1)), [](int) { return sizeof mine; });
        std::memcpy(sizes.data(), in.data(), in.size());
        exchange(own, [&](int r) { return sizes[static_cast<std::size_t>(r)]; });
        auto from = in.begin();
        for (std::size_t r = 0; r < all.size(); ++r) {
          all[r].assign(from, from + static_cast<std::ptrdiff_t>(sizes[r]));
          from += static_cast<std::ptrdiff_t>(sizes[r]);
        }
      });
      return all;
    }
    /// To `in` what each rank has, `bytes_of(r)` of them, one behind the other.
    template <class BytesOf>
    void exchange(std::span<const std::byte> own, const BytesOf& bytes_of) {
      std::vector<std::size_t> begin{0};
      for (int r = 0; r < size; ++r) begin.push_back(begin.back() + bytes_of(r));
      out.assign(own.begin(), own.end());
      in.resize(begin.back());
      std::copy(own.begin(), own.end(),
                in.begin() + static_cast<std::ptrdiff_t>(begin[static_cast<std::size_t>(rank)]));
      for_others([&](int r) { receive(in.data() + begin[static_cast<std::size_t>(r)], bytes_of(r), r); });
      for_others([&](int r) { send(out.data(), out.size(), r); });
      wait();
    }
  };

  std::shared_ptr<link> link_;
};

}  // namespace core_tokensets
