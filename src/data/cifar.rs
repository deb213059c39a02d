//! Bytes of a CIFAR file in the original binary layout -> pixels HWC and labels.
//!
//! Layout (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009): records without header or
//! separator. CIFAR-10: 1 label byte (0-9). CIFAR-100: 1 coarse label byte (0-19), 1 fine label byte (0-99). Then
//! 1,024 red, 1,024 green and 1,024 blue bytes, each plane row by row.

use super::ImageShape;
use rayon::prelude::*;

/// Extents of every CIFAR image.
pub const SHAPE: ImageShape = ImageShape { h: 32, w: 32, c: 3 };

const PLANE: usize = SHAPE.h * SHAPE.w;

/// Which of the two layouts a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Records of 3,073 bytes, 10 classes.
    Cifar10,
    /// Records of 3,074 bytes, 100 classes; the fine label counts.
    Cifar100,
}

impl Format {
    /// Label bytes before the pixels, each with its name and number of values.
    const fn label_bytes(self) -> &'static [(LabelKind, u32)] {
        match self {
            Self::Cifar10 => &[(LabelKind::Class, 10)],
            Self::Cifar100 => &[(LabelKind::Coarse, 20), (LabelKind::Fine, 100)],
        }
    }

    /// Bytes of one record: label bytes and pixels.
    pub const fn record_bytes(self) -> usize {
        self.label_bytes().len() + SHAPE.numel()
    }

    /// Number of classes (fine ones for CIFAR-100).
    pub const fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    /// `cifar-10` or `cifar-100`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
        }
    }
}

/// What a label byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelKind {
    /// The only label of CIFAR-10.
    Class,
    /// The super-class of CIFAR-100.
    Coarse,
    /// The class of CIFAR-100.
    Fine,
}

impl std::fmt::Display for LabelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Class => "label",
            Self::Coarse => "coarse label",
            Self::Fine => "fine label",
        })
    }
}

/// Decoded records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Pixels, `[labels.len(), 32, 32, 3]`.
    pub images: Vec<u8>,
    /// Class of each image.
    pub labels: Vec<u32>,
}

/// Why bytes are not a file of the expected layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is no record at all.
    #[error("the file is empty; download or unpack it again")]
    Empty,
    /// The last record is cut short.
    #[error(
        "record {record} is cut short at byte {len_bytes}: {found_bytes} of {record_bytes} bytes; \
         download or unpack the file again, and check that it is a {} file", format.name()
    )]
    Truncated {
        /// The expected layout.
        format: Format,
        /// Number of the incomplete record, from 0.
        record: usize,
        /// Bytes of the incomplete record that are there.
        found_bytes: usize,
        /// Bytes of a whole record.
        record_bytes: usize,
        /// Length of the file.
        len_bytes: usize,
    },
    /// A label byte has a value that no class has.
    #[error(
        "record {record}: {kind} {value} at byte {offset_bytes} is not below {classes}; \
         the file is damaged or not a {} file: download or unpack it again", format.name()
    )]
    LabelOutOfRange {
        /// The expected layout.
        format: Format,
        /// Which label.
        kind: LabelKind,
        /// Number of the record, from 0.
        record: usize,
        /// Position of the label byte in the file.
        offset_bytes: usize,
        /// Its value.
        value: u8,
        /// Number of values that the label may have.
        classes: u32,
    },
}

/// Turns a whole file into labels and HWC pixels.
///
/// # Shapes
/// `bytes`: records of `format.record_bytes()`, planar (C, H, W); result: `[records, H, W, C]`.
///
/// # Errors
/// If `bytes` is empty, ends inside a record, or has a label out of range: the first such record is named.
///
/// # Example
/// ```
/// use scadles::data::cifar::{DecodeError, Format, decode};
/// let mut file = vec![7u8; Format::Cifar10.record_bytes()];
/// assert_eq!(decode(Format::Cifar10, &file).unwrap().labels, [7]);
/// file[0] = 10;
/// assert!(matches!(decode(Format::Cifar10, &file), Err(DecodeError::LabelOutOfRange { value: 10, .. })));
/// ```
pub fn decode(format: Format, bytes: &[u8]) -> Result<Records, DecodeError> {
    let record_bytes = format.record_bytes();
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let records = bytes.chunks_exact(record_bytes);
    let found_bytes = records.remainder().len();
    let mut labels = Vec::with_capacity(records.len());
    for (record, bytes) in records.enumerate() {
        labels.push(label(format, record, bytes)?);
    }
    if found_bytes > 0 {
        let record = labels.len();
        return Err(DecodeError::Truncated {
            format,
            record,
            found_bytes,
            record_bytes,
            len_bytes: bytes.len(),
        });
    }
    let mut images = vec![0; labels.len() * SHAPE.numel()];
    let planar = bytes.par_chunks_exact(record_bytes);
    images.par_chunks_exact_mut(SHAPE.numel()).zip(planar).with_min_len(256).for_each(|(image, record)| {
        let (red_green, blue) = record[record_bytes - SHAPE.numel()..].split_at(2 * PLANE);
        let (red, green) = red_green.split_at(PLANE);
        for (pixel, ((&r, &g), &b)) in image.chunks_exact_mut(SHAPE.c).zip(red.iter().zip(green).zip(blue)) {
            pixel.copy_from_slice(&[r, g, b]);
        }
    });
    Ok(Records { images, labels })
}

/// The class of one whole record, its last label byte, after all of them are checked.
fn label(format: Format, record: usize, bytes: &[u8]) -> Result<u32, DecodeError> {
    let mut class = 0;
    for (position, (&(kind, classes), &value)) in format.label_bytes().iter().zip(bytes).enumerate() {
        if u32::from(value) >= classes {
            let offset_bytes = record * format.record_bytes() + position;
            return Err(DecodeError::LabelOutOfRange { format, kind, record, offset_bytes, value, classes });
        }
        class = u32::from(value);
    }
    Ok(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels() {
        let mut file = vec![42, 99];
        file[0] = 19;
        for channel in 0..3u32 {
            file.extend((0..PLANE as u32).map(|i| (i * 7 + channel * 85) as u8));
        }
        let records = decode(Format::Cifar100, &file).unwrap();
        assert_eq!(records.labels, [99]);
        for (i, pixel) in records.images.chunks(3).enumerate() {
            let want = [0, 85, 170].map(|shift| (i as u32 * 7 + shift) as u8);
            assert_eq!(pixel, want, "pixel {i}");
        }
    }

    #[test]
    fn the_first_bad_record_is_named() {
        assert_eq!(decode(Format::Cifar10, &[]), Err(DecodeError::Empty));
        let mut file = vec![0; 2 * 3074 + 5];
        let cut = decode(Format::Cifar100, &file).unwrap_err();
        assert_eq!(
            cut.to_string(),
            "record 2 is cut short at byte 6153: 5 of 3074 bytes; download or unpack the file again, \
             and check that it is a cifar-100 file"
        );
        file[3074] = 20;
        let coarse = decode(Format::Cifar100, &file).unwrap_err();
        assert!(matches!(
            coarse,
            DecodeError::LabelOutOfRange {
                kind: LabelKind::Coarse,
                record: 1,
                offset_bytes: 3074,
                value: 20,
                ..
            }
        ));
        file[1] = 100;
        let fine = decode(Format::Cifar100, &file).unwrap_err();
        assert_eq!(
            fine.to_string(),
            "record 0: fine label 100 at byte 1 is not below 100; the file is damaged or not a cifar-100 file: \
             download or unpack it again"
        );
    }
}
