#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "emulator.h"

#ifdef EMULATOR_ADDRESS_SANITIZER
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a function must keep, changes stacks, and restores it from there: 14 instructions, where swapcontext also asks
// the system to change signal masks.
extern "C" void emulator_switch(void** save, void* to);

#if defined(__x86_64__)
__asm__(R"(
.text
.p2align 4
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");
#elif defined(__aarch64__)
__asm__(R"(
.text
.p2align 4
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,%function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emulator_switch,.-emulator_switch
)");
#else
#error "the emulator changes stacks on x86-64 and aarch64 only"
#endif

namespace emulator {
namespace {

#ifdef EMULATOR_ADDRESS_SANITIZER
constexpr size_t kStackBytes = 256 << 10;  // redzones around every variable
// The stack that the fiber was made from, which only its first entry learns.
thread_local const void* left_stack;
thread_local size_t left_stack_bytes;
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

}  // namespace

void make_fiber(Fiber& fiber, void (*entry)(), unsigned number) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
        fprintf(stderr, "emulator: no memory for the stack of a thread\n");
        abort();
    }
    fiber.stack = static_cast<unsigned char*>(memory) + page;
    fiber.stack_bytes = kStackBytes;
    // Tops at different distances from the page's end, so that the stacks do not compete for the same cache lines.
    auto** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - 64 - number % 48 * 64);
#if defined(__x86_64__)
    *--top = nullptr;  // where entry would return to
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
#else
    top -= 20;
    for (int i = 0; i < 20; ++i) top[i] = nullptr;
    top[11] = reinterpret_cast<void*>(entry);  // x30
#endif
    fiber.stack_pointer = top;
}

void switch_fiber(Fiber& from, Fiber& to) {
#ifdef EMULATOR_ADDRESS_SANITIZER
    const void* stack = to.stack != nullptr ? to.stack : left_stack;
    const size_t bytes = to.stack != nullptr ? to.stack_bytes : left_stack_bytes;
    __sanitizer_start_switch_fiber(&from.fake_stack, stack, bytes);
    emulator_switch(&from.stack_pointer, to.stack_pointer);
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#else
    emulator_switch(&from.stack_pointer, to.stack_pointer);
#endif
}

void fiber_begins() {
#ifdef EMULATOR_ADDRESS_SANITIZER
    const void* stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
    // The first fiber is entered from the system's stack.
    if (left_stack == nullptr) left_stack = stack, left_stack_bytes = bytes;
#endif
}

}  // namespace emulator
