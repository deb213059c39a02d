//! Zeroed memory whose first element starts a cache line.

use super::error::NnError;

const LINE_BYTES: usize = 64;

/// A slice of `T` that starts at a multiple of 64 bytes. The operating system hands pages out on first use, so a
/// part that no batch has reached costs nothing.
#[derive(Debug)]
pub(super) struct Aligned<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: bytemuck::Zeroable> Aligned<T> {
    /// `len` zeros; `what` names them in the error.
    pub(super) fn zeroed(len: usize, what: &'static str) -> Result<Self, NnError> {
        let spare = LINE_BYTES / size_of::<T>();
        let too_large = NnError::OutOfMemory { what, bytes: len as u128 * size_of::<T>() as u128 };
        let Some(data) =
            len.checked_add(spare).and_then(|n| bytemuck::allocation::try_zeroed_vec::<T>(n).ok())
        else {
            return Err(too_large);
        };
        let start = data.as_ptr().align_offset(LINE_BYTES);
        assert!(start <= spare, "no cache line starts in {LINE_BYTES} bytes");
        Ok(Self { data, start, len })
    }
}

impl<T> std::ops::Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.data[self.start..self.start + self.len]
    }
}

impl<T> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_a_cache_line_and_refuses_what_cannot_be_had() {
        for len in [0, 1, 17, 100_000] {
            let buffer = Aligned::<f32>::zeroed(len, "test").unwrap();
            assert_eq!((buffer.len(), buffer.as_ptr() as usize % 64), (len, 0));
        }
        assert!(matches!(Aligned::<f32>::zeroed(usize::MAX / 8, "test"), Err(NnError::OutOfMemory { .. })));
    }
}
