// grid.cc: the blocks of a launch, in random order, on several threads of the system

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "settings.h"
#include "worker.h"

namespace emulator {
namespace {

// Blocks of a launch, on one thread of the system, that find NaN in what the kernel declares as shared memory; filling it
// for every one would take longer than many blocks do.
constexpr unsigned kBlocksPoisoned = 2;
// Launches with fewer threads are done before another thread of the system would wake up.
constexpr uint64_t kThreadsWorthSharing = 4096;

uint64_t name_hash(const char* name) {
    uint64_t hash = 0xcbf29ce484222325;
    for (; *name != 0; ++name) hash = (hash ^ static_cast<unsigned char>(*name)) * 0x100000001b3;
    return hash;
}

class Job {
   public:
    explicit Job(const Launch& launch)
        : launch_(launch),
          num_blocks_(uint64_t{launch.grid_dim.x} * launch.grid_dim.y * launch.grid_dim.z),
          seed_(mix(seed(), name_hash(launch.kernel->name))) {
        Random random(seed_);
        first_ = random.next() % num_blocks_;
        // Every block once: a step that has no divisor in common with their number.
        step_ = num_blocks_ > 2 ? 1 + random.next() % (num_blocks_ - 1) : 1;
        while (std::gcd(step_, num_blocks_) != 1) step_ = step_ % (num_blocks_ - 1) + 1;
    }

    uint64_t num_blocks() const { return num_blocks_; }

    // Runs blocks until none is left to begin.
    void work() {
        Worker& worker = this_worker();
        reserve_dynamic_shared(launch_.shared_bytes);
        const Index grid = launch_.grid_dim;
        for (unsigned done = 0;; ++done) {
            const uint64_t ticket = next_.fetch_add(1, std::memory_order_relaxed);
            if (ticket >= num_blocks_) return;
            const auto block = static_cast<uint64_t>((static_cast<unsigned __int128>(ticket) * step_ + first_) % num_blocks_);
            const Index index{static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                              static_cast<unsigned>(block / grid.x / grid.y)};
            run_block(worker, launch_, index, mix(seed_, block), done < kBlocksPoisoned);
        }
    }

    bool exhausted() const { return next_.load(std::memory_order_relaxed) >= num_blocks_; }

    unsigned helpers = 0;  // guarded by the pool's lock

   private:
    const Launch& launch_;
    uint64_t num_blocks_, seed_, first_, step_;
    std::atomic<uint64_t> next_{0};
};

// Threads that help whoever launches.
class Pool {
   public:
    explicit Pool(uint64_t threads) {
        for (uint64_t i = 1; i < threads; ++i) std::thread([this] { help(); }).detach();
    }

    void run(Job& job) {
        {
            std::lock_guard lock(lock_);
            jobs_.push_back(&job);
        }
        wake_.notify_all();
        job.work();
        std::unique_lock lock(lock_);
        std::erase(jobs_, &job);
        done_.wait(lock, [&] { return job.helpers == 0; });
    }

   private:
    [[noreturn]] void help() {
        std::unique_lock lock(lock_);
        for (;;) {
            Job* job = nullptr;
            wake_.wait(lock, [&] {
                std::erase_if(jobs_, [](const Job* job) { return job->exhausted(); });
                return !jobs_.empty();
            });
            job = jobs_.front();
            ++job->helpers;
            lock.unlock();
            job->work();
            lock.lock();
            if (--job->helpers == 0) done_.notify_all();
        }
    }

    std::mutex lock_;
    std::condition_variable wake_, done_;
    std::vector<Job*> jobs_;
};

#ifdef EMULATOR_ADDRESS_SANITIZER
// `__shared__` variables are the process's: one block at a time.
uint64_t system_threads() { return 1; }
#else
uint64_t system_threads() {
    return std::max<uint64_t>(1, setting("SCADLES_EMULATOR_THREADS", std::max(1u, std::thread::hardware_concurrency())));
}
#endif

// Never destroyed: its threads wait for launches until the process ends.
Pool& pool() {
    static Pool& pool = *new Pool(system_threads());
    return pool;
}

}  // namespace

Worker& this_worker() {
    if (core.worker == nullptr) core.worker = new Worker;  // as long as the system's thread
    return *static_cast<Worker*>(core.worker);
}

void run_grid(const Launch& launch) {
    Job job(launch);
    const uint64_t threads = uint64_t{launch.block_dim.x} * launch.block_dim.y * launch.block_dim.z;
#ifdef EMULATOR_ADDRESS_SANITIZER
    static std::mutex one_at_a_time;
    std::lock_guard lock(one_at_a_time);
#endif
    if (job.num_blocks() == 1 || job.num_blocks() * threads < kThreadsWorthSharing) {
        job.work();
    } else {
        pool().run(job);
    }
}

}  // namespace emulator
