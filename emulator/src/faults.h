// faults.h: failures on demand
#pragma once

namespace emulator {

// What the next allocation, launch or wait answers: 0, or the status that the environment asks for.
int fault_of_allocation();
int fault_of_launch();
int fault_of_wait();

}  // namespace emulator
