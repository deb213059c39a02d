//! The kernels that were compiled into this program.

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A fatbin where the driver reads whole words of it; `include_bytes!` alone puts it anywhere.
#[allow(dead_code, reason = "a program without kernels holds none")]
#[repr(C, align(16))]
struct Aligned<T>(T);

/// Names of the embedded kernel files, sorted; none in a program that was built without nvcc.
pub fn kernels() -> impl Iterator<Item = &'static str> {
    IMAGES.iter().map(|(name, _)| *name)
}

/// What each kernel was compiled for: machine code such as `sm_90`, PTX such as `compute_90`.
pub fn architectures() -> &'static [&'static str] {
    ARCHITECTURES
}

/// Version of the nvcc that compiled them, as in `13.0`.
pub fn toolkit() -> Option<&'static str> {
    Some(TOOLKIT).filter(|version| !version.is_empty())
}

/// Every kernel file with its entry points, whether it was compiled or not.
pub(super) fn entries() -> &'static [(&'static str, &'static [&'static str])] {
    ENTRIES
}

/// The fatbin of one kernel file.
pub(super) fn image(kernel: &str) -> Option<&'static [u8]> {
    IMAGES.iter().find(|(name, _)| *name == kernel).map(|(_, image)| *image)
}

/// Whether this kernel file is for Hopper only, and may be missing where the others are there.
pub(super) fn is_for_hopper_only(kernel: &str) -> bool {
    kernel.ends_with(HOPPER_ONLY)
}

/// Whether kernels compiled for `architectures` run on a device of compute capability `(major, minor)`: machine code of
/// the same major version and no later minor one, or PTX no later than the device.
pub(super) fn runs_on(architectures: &[&str], (major, minor): (u32, u32)) -> bool {
    let runs = |name: &str| {
        let (ptx, number) = match (name.strip_prefix("sm_"), name.strip_prefix("compute_")) {
            (Some(number), _) => (false, number),
            (_, Some(number)) => (true, number),
            _ => return false,
        };
        // sm_90a is for 9.0 only.
        let exact = number.strip_suffix('a');
        let Ok(number) = exact.unwrap_or(number).parse::<u32>() else { return false };
        let built = (number / 10, number % 10);
        match exact {
            Some(_) => built == (major, minor),
            None => built <= (major, minor) && (ptx || built.0 == major),
        }
    };
    architectures.iter().any(|name| runs(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_runs_within_a_major_version_and_ptx_on_what_is_newer() {
        let default = ["sm_80", "sm_87", "sm_89", "sm_90", "sm_90a", "compute_90"];
        for capability in [(8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 1)] {
            assert!(runs_on(&default, capability), "{capability:?}");
        }
        for capability in [(7, 5), (3, 7)] {
            assert!(!runs_on(&default, capability), "{capability:?}");
        }
        assert!(!runs_on(&["sm_90"], (8, 9)) && !runs_on(&["sm_90"], (10, 0)));
        assert!(runs_on(&["sm_90a"], (9, 0)) && !runs_on(&["compute_90a"], (10, 0)));
        assert!(!runs_on(&[], (9, 0)));
    }

    #[test]
    fn the_table_holds_every_kernel_file_or_none() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels")).unwrap();
        let files = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            files.filter_map(|name| name.strip_suffix(".cu").map(Into::into)).collect();
        names.sort();
        let embedded: Vec<&str> = kernels().collect();
        if toolkit().is_some() {
            assert_eq!(embedded, names);
            assert!(!architectures().is_empty());
            for name in embedded {
                let bytes = image(name).unwrap();
                assert!(bytes.len() > 100 && bytes.as_ptr().addr().is_multiple_of(16), "{name}: {bytes:p}");
            }
        } else {
            assert!(embedded.is_empty() && architectures().is_empty());
        }
    }
}
