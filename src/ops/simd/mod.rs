//! Which vector instructions the CPU kernels use: found once at run time, never at build time.

pub(crate) mod lanes;
pub(crate) mod pairs;
pub(crate) mod stored;
mod transpose;

pub use pairs::PairLevel;

use std::sync::OnceLock;

/// A set of vector instructions that the CPU kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SimdLevel {
    /// 16 lanes of f32, fused multiply-add (x86-64 with AVX-512F).
    Avx512,
    /// 8 lanes of f32, fused multiply-add (x86-64 with AVX2 and FMA).
    Avx2,
    /// No particular instructions; the compiler vectorises for the target it was given.
    Portable,
}

impl SimdLevel {
    /// Every level, the widest first.
    pub const ALL: [SimdLevel; 3] = [SimdLevel::Avx512, SimdLevel::Avx2, SimdLevel::Portable];

    /// Whether this machine can execute the level's instructions.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => std::is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            SimdLevel::Avx512 | SimdLevel::Avx2 => false,
            SimdLevel::Portable => true,
        }
    }

    /// The level the ops use: the widest available one, or the one that the environment variable `SCADLES_SIMD`
    /// (`avx512`, `avx2`, `portable`) names. Read once; a name that is unknown or not available here changes nothing.
    pub fn current() -> SimdLevel {
        static CURRENT: OnceLock<SimdLevel> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let asked = std::env::var("SCADLES_SIMD").ok();
            choose(asked.as_deref())
        })
    }
}

fn choose(asked: Option<&str>) -> SimdLevel {
    let asked = match asked {
        Some("avx512") => Some(SimdLevel::Avx512),
        Some("avx2") => Some(SimdLevel::Avx2),
        Some("portable") => Some(SimdLevel::Portable),
        _ => None,
    };
    let available = |level: &SimdLevel| level.is_available();
    asked
        .filter(available)
        .or_else(|| SimdLevel::ALL.into_iter().find(available))
        .unwrap_or(SimdLevel::Portable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_only_choose_what_the_machine_has() {
        assert_eq!(choose(Some("portable")), SimdLevel::Portable);
        assert_eq!(choose(Some("no such level")), choose(None));
        for (name, level) in [("avx512", SimdLevel::Avx512), ("avx2", SimdLevel::Avx2)] {
            let expected = if level.is_available() { level } else { choose(None) };
            assert_eq!(choose(Some(name)), expected);
        }
        assert!(SimdLevel::current().is_available());
    }
}
