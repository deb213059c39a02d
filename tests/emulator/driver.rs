//! The driver: memory, limits of launches, streams, events, recordings.

use crate::device::{Device, args, device_or_skip};
use cudarc::driver::{result, sys};

const AXPY: &str = "collectives_axpy";

/// `y += a * x` of 64 elements, queued.
fn axpy(device: &Device, y: u64, x: u64, a: f32) {
    device.launch(AXPY, 1, 64, 0, args![y, x, a, 64_i64]);
}

#[test]
fn new_memory_is_nan_and_counted() {
    let Some(device) = device_or_skip("new_memory_is_nan_and_counted") else { return };
    // Other tests allocate meanwhile; this is more than they do.
    let (free, total) = result::mem_get_info().unwrap();
    let bytes = 256 << 20;
    let address = device.allocate(bytes);
    let (less, same) = result::mem_get_info().unwrap();
    assert!(same == total && free - less >= bytes / 2, "{free} {less} {total}");
    assert!(device.read::<f32>(address + (bytes as u64) - 400, 100).iter().all(|x| x.is_nan()));
    // SAFETY: allocated above, and nothing uses it.
    unsafe { result::free_sync(address) }.unwrap();
    // SAFETY: refused.
    assert_eq!(unsafe { result::free_sync(address) }.unwrap_err().0, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
    // SAFETY: refused.
    let too_much = unsafe { result::malloc_sync(total + 1) }.unwrap_err();
    assert_eq!(too_much.0, sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
}

#[test]
fn launches_beyond_a_limit_are_refused() {
    let Some(device) = device_or_skip("launches_beyond_a_limit_are_refused") else { return };
    let x = device.upload(&[0_f32; 64]);
    let launch = |name: &str, grid, block, shared_bytes| {
        device.try_launch(name, grid, block, shared_bytes, args![x, x, 0.0_f32, 64_i64])
    };
    assert_eq!(launch(AXPY, [2, 65_535, 1], [1, 1, 1], 227 << 10), Ok(()));
    for (grid, block, shared_bytes) in [
        ([0, 1, 1], [32, 1, 1], 0),
        ([1, 65_536, 1], [32, 1, 1], 0),
        ([1, 1, 65_536], [32, 1, 1], 0),
        ([1, 1, 1], [1025, 1, 1], 0),
        ([1, 1, 1], [32, 33, 1], 0),
        ([1, 1, 1], [1, 1, 65], 0),
        ([1, 1, 1], [0, 1, 1], 0),
        ([1, 1, 1], [32, 1, 1], (227 << 10) + 1),
    ] {
        let refused = launch(AXPY, grid, block, shared_bytes);
        assert_eq!(
            refused,
            Err(sys::CUresult::CUDA_ERROR_INVALID_VALUE),
            "{grid:?} {block:?} {shared_bytes}"
        );
    }
    // Bounded to 256 threads in its source.
    let refused = device.try_launch("collectives_sum", [1, 1, 1], [512, 1, 1], 0, args![x, x, 1_i64]);
    assert_eq!(refused, Err(sys::CUresult::CUDA_ERROR_INVALID_VALUE));
    // More than 48 KiB only for who asked.
    let mut words = [x, x, 0, 64];
    let mut pointers = words.each_mut().map(|word| std::ptr::from_mut(word).cast());
    let stream = device.stream.cu_stream();
    let function = device.function(AXPY);
    // SAFETY: what the kernel takes; refused.
    let refused = unsafe {
        result::launch_kernel(function, (1, 1, 1), (32, 1, 1), (48 << 10) + 1, stream, &mut pointers)
    };
    assert_eq!(refused.unwrap_err().0, sys::CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn a_recording_keeps_arguments_and_reads_memory_when_it_runs() {
    let Some(device) = device_or_skip("a_recording_keeps_arguments_and_reads_memory_when_it_runs") else {
        return;
    };
    let (x, y) = (device.upload(&[1_f32; 64]), device.upload(&[0_f32; 64]));
    device.stream.synchronize().unwrap();
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    device.stream.begin_capture(mode).unwrap();
    let mut factor = 2.0;
    axpy(&device, y, x, factor);
    factor = 100.0;
    axpy(&device, y, x, factor);
    let graph = device.stream.end_capture(sys::CUgraphInstantiate_flags(0)).unwrap().unwrap();
    assert_eq!(device.read::<f32>(y, 64), [0.0; 64], "nothing runs while it is recorded");
    graph.launch().unwrap();
    assert_eq!(device.read::<f32>(y, 64), [102.0; 64]);
    device.write(x, &[10_f32; 64]);
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(device.read::<f32>(y, 64), [2142.0; 64]);
}

#[test]
fn what_a_recording_forbids_spoils_it() {
    let Some(device) = device_or_skip("what_a_recording_forbids_spoils_it") else { return };
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    device.stream.begin_capture(mode).unwrap();
    // SAFETY: refused.
    let refused = unsafe { result::malloc_sync(64) }.unwrap_err();
    assert_eq!(refused.0, sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    let Err(spoilt) = device.stream.end_capture(sys::CUgraphInstantiate_flags(0)) else {
        panic!("the recording goes on")
    };
    assert_eq!(spoilt.0, sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    device.stream.begin_capture(mode).unwrap();
    assert!(device.stream.synchronize().is_err());
    assert!(device.stream.end_capture(sys::CUgraphInstantiate_flags(0)).is_err());
    device.stream.synchronize().unwrap();
}

#[test]
fn streams_wait_for_events_and_for_nothing_else() {
    let Some(device) = device_or_skip("streams_wait_for_events_and_for_nothing_else") else { return };
    let (x, y) = (device.upload(&[1_f32; 64]), device.upload(&[0_f32; 64]));
    device.stream.synchronize().unwrap();
    let second = Device { stream: device.stream.context().new_stream().unwrap() };
    // Without an event the second stream runs although the first has not.
    axpy(&device, x, x, 1.0);
    axpy(&second, y, x, 1.0);
    second.stream.synchronize().unwrap();
    device.stream.synchronize().unwrap();
    assert_eq!(second.read::<f32>(y, 64), [1.0; 64], "y = x from before");
    assert_eq!(device.read::<f32>(x, 64), [2.0; 64]);
    // With one it waits.
    axpy(&device, x, x, 1.0);
    let event = device.stream.record_event(None).unwrap();
    second.stream.wait(&event).unwrap();
    axpy(&second, y, x, 1.0);
    assert_eq!(second.read::<f32>(y, 64), [5.0; 64]);
    assert!(event.is_complete());
}

#[test]
fn events_tell_the_time_between_them() {
    let Some(device) = device_or_skip("events_tell_the_time_between_them") else { return };
    let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
    let begin = device.stream.record_event(timed).unwrap();
    let x = device.upload(&[0_f32; 64]);
    axpy(&device, x, x, 1.0);
    let end = device.stream.record_event(timed).unwrap();
    assert!(begin.elapsed_ms(&end).unwrap() > 0.0);
    let untimed = device.stream.record_event(None).unwrap();
    device.stream.synchronize().unwrap();
    assert!(begin.elapsed_ms(&untimed).is_err());
}

#[test]
fn pinned_memory_is_read_when_the_copy_runs() {
    let Some(device) = device_or_skip("pinned_memory_is_read_when_the_copy_runs") else { return };
    let (x, stream) = (device.allocate(256), device.stream.cu_stream());
    // SAFETY: 64 elements, freed below.
    let pinned = unsafe {
        let start = result::malloc_host(256, 0).unwrap().cast::<f32>();
        std::slice::from_raw_parts_mut(start, 64)
    };
    let mut pageable = [1_f32; 64];
    pinned.fill(1.0);
    // SAFETY: the copy is waited for below.
    unsafe { result::memcpy_htod_async(x, pinned, stream) }.unwrap();
    pinned.fill(2.0); // too early: the copy is only queued
    assert_eq!(device.read::<f32>(x, 64), [2.0; 64]);
    // SAFETY: as above.
    unsafe { result::memcpy_htod_async(x, &pageable, stream) }.unwrap();
    pageable.fill(2.0);
    assert_eq!((device.read::<f32>(x, 64), pageable), (vec![1.0; 64], [2.0; 64]));
    // SAFETY: as above; the wait is forgotten once.
    unsafe { result::memcpy_dtoh_async(pinned, x, stream) }.unwrap();
    assert_eq!(pinned[0], 2.0);
    device.stream.synchronize().unwrap();
    assert_eq!(pinned[0], 1.0);
    // SAFETY: allocated above, and no copy is on its way.
    unsafe { result::free_host(pinned.as_mut_ptr().cast()) }.unwrap();
}

#[test]
fn images_name_the_kernels_they_hold() {
    let Some(_device) = device_or_skip("images_name_the_kernels_they_hold") else { return };
    // SAFETY: an image as the emulator's driver takes it.
    let module =
        unsafe { result::module::load_data(c"emulated kernel file: matrix\n".as_ptr().cast()) }.unwrap();
    // SAFETY: the module was just loaded.
    let found = |name: &std::ffi::CStr| unsafe { result::module::get_function(module, name.into()) };
    assert!(found(c"matrix_gemm").is_ok());
    for name in [c"collectives_axpy", c"matrix_nothing"] {
        assert_eq!(found(name).unwrap_err().0, sys::CUresult::CUDA_ERROR_NOT_FOUND);
    }
}

#[test]
fn hopper_images_need_a_hopper() {
    let Some(device) = device_or_skip("hopper_images_need_a_hopper") else { return };
    let capability = device.stream.context().compute_capability().unwrap();
    let load = |image: &std::ffi::CStr| {
        // SAFETY: an image as the emulator's driver takes it.
        unsafe { result::module::load_data(image.as_ptr().cast()) }.map(drop).map_err(|error| error.0)
    };
    assert_eq!(load(c"emulated kernel file: matrix\n"), Ok(()));
    let expected = match capability {
        (9, 0) => Ok(()),
        _ => Err(sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
    };
    assert_eq!(load(c"emulated kernel file: matrix_wgmma\n"), expected, "{capability:?}");
    println!("capability {capability:?}");
}
