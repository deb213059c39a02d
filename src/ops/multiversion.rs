//! One loop, compiled for several instruction sets and chosen at run time.
//!
//! The loops written with [`multiversion!`] rely on the compiler to vectorise them. They never ask for a
//! fused multiply-add, so each version computes the same bits.

/// Defines functions whose bodies are compiled for AVX-512, for AVX2 and for the baseline; a call takes the
/// widest one the processor has. Calls inside a body must be `#[inline(always)]` to be compiled along with
/// it.
macro_rules! multiversion {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$of:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        $vis fn $name $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn baseline $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512 $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    baseline($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<$of: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                    baseline($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has just said that it has each feature the function is compiled
                    // for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            baseline($($arg),*)
        }
    )+};
}

pub(crate) use multiversion;
