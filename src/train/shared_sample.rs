//! A sample on its way between devices: label and offset (little endian), then the pixels.

/// Bytes before the pixels.
const HEADER_BYTES: usize = 4 + 8;

/// Appends one sample to `block`.
pub(crate) fn encode(block: &mut Vec<u8>, label: u32, offset: u64, pixels: &[u8]) {
    block.extend_from_slice(&label.to_le_bytes());
    block.extend_from_slice(&offset.to_le_bytes());
    block.extend_from_slice(pixels);
}

/// The samples of `block` in the order in which they were appended: label, offset, pixels.
pub(crate) fn decode(block: &[u8], pixel_bytes: usize) -> impl Iterator<Item = (u32, u64, &[u8])> {
    block.chunks_exact(HEADER_BYTES + pixel_bytes).map(|sample| {
        let (header, pixels) = sample.split_at(HEADER_BYTES);
        let (label, offset) = header.split_at(4);
        let label = u32::from_le_bytes(label.try_into().expect("a label has 4 bytes"));
        let offset = u64::from_le_bytes(offset.try_into().expect("an offset has 8 bytes"));
        (label, offset, pixels)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_back_in_order() {
        let mut block = Vec::new();
        encode(&mut block, 3, 1 << 40, &[1, 2, 3]);
        encode(&mut block, 9, 7, &[4, 5, 6]);
        let samples: Vec<_> = decode(&block, 3).collect();
        assert_eq!(samples, [(3, 1 << 40, &[1u8, 2, 3][..]), (9, 7, &[4, 5, 6][..])]);
    }
}
