//! Labelled images in memory, shared without copying.

pub use crate::shape::ImageShape;
use std::sync::Arc;

/// Mean and standard deviation of each channel, of pixel values scaled to `[0, 1]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of each channel, `[C]`.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, `[C]`, above 0.
    pub std: Vec<f32>,
}

impl Normalization {
    /// Measures `images`, `[len, H, W, C]` with `channels` = C; sums are integers, so the result is exact to rounding.
    ///
    /// A channel without variation (or no pixel at all) gets a standard deviation of 1, so that dividing by it is safe.
    pub fn measure(images: &[u8], channels: usize) -> Self {
        let mut sum = vec![0u64; channels];
        let mut sum_of_squares = vec![0u64; channels];
        for pixel in images.chunks_exact(channels.max(1)) {
            for (channel, &value) in pixel.iter().enumerate() {
                sum[channel] += u64::from(value);
                sum_of_squares[channel] += u64::from(value) * u64::from(value);
            }
        }
        let count = (images.len() / channels.max(1)).max(1) as f64;
        let moments = sum.iter().zip(&sum_of_squares).map(|(&s, &ss)| {
            let mean = s as f64 / count;
            let std = (ss as f64 / count - mean * mean).max(0.0).sqrt() / 255.0;
            ((mean / 255.0) as f32, if std > 0.0 { std as f32 } else { 1.0 })
        });
        let (mean, std) = moments.unzip();
        Self { mean, std }
    }
}

/// Images and labels of one split. Clones share the pixels.
#[derive(Clone, Debug)]
pub struct Dataset {
    images: Arc<Vec<u8>>,
    labels: Arc<Vec<u32>>,
    shape: ImageShape,
    class_names: Arc<Vec<String>>,
    normalization: Normalization,
}

impl Dataset {
    /// A data set of `labels.len()` images.
    ///
    /// # Shapes
    /// `images`: `[labels.len(), H, W, C]`, contiguous; `class_names`: one per class; `normalization`: `[C]`.
    ///
    /// # Panics
    /// If a length disagrees with `shape` or a label is not below the number of classes: readers check their input
    /// before they get here.
    pub fn new(
        images: Vec<u8>,
        labels: Vec<u32>,
        shape: ImageShape,
        class_names: Arc<Vec<String>>,
        normalization: Normalization,
    ) -> Self {
        assert_eq!(images.len(), labels.len() * shape.numel(), "Dataset: pixels and labels disagree");
        assert!(labels.iter().all(|&l| (l as usize) < class_names.len()), "Dataset: label out of range");
        assert_eq!(normalization.mean.len(), shape.c, "Dataset: one mean per channel");
        assert_eq!(normalization.std.len(), shape.c, "Dataset: one standard deviation per channel");
        Self { images: Arc::new(images), labels: Arc::new(labels), shape, class_names, normalization }
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels of image `index`, `[H, W, C]`. Panics if `index` is not below [`len`](Self::len).
    pub fn image(&self, index: usize) -> &[u8] {
        let numel = self.shape.numel();
        &self.images[index * numel..(index + 1) * numel]
    }

    /// Class of image `index`, below [`classes`](Self::classes). Panics if `index` is not below [`len`](Self::len).
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// All pixels, `[len, H, W, C]`.
    pub fn images(&self) -> &[u8] {
        &self.images
    }

    /// All labels, `[len]`.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Extents of one image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of classes, whether or not each one occurs.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// Name of each class, `[classes]`.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Mean and standard deviation to normalise with: those of the training split, for both splits.
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }
}

/// The two splits of a data set.
#[derive(Clone, Debug)]
pub struct DataSets {
    /// What devices stream.
    pub train: Dataset,
    /// What a model is evaluated on.
    pub test: Dataset,
    /// Name for reports: `cifar-10`, `cifar-100`, `embedded`.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalization_is_per_channel_and_never_divides_by_zero() {
        let n = Normalization::measure(&[0, 10, 255, 10, 0, 10, 255, 10], 2);
        assert_eq!(n.mean, [0.5, 10.0 / 255.0]);
        assert_eq!(n.std, [0.5, 1.0]);
        assert_eq!(Normalization::measure(&[], 3), Normalization { mean: vec![0.0; 3], std: vec![1.0; 3] });
    }

    #[test]
    fn images_and_labels_are_found_by_index() {
        let names = Arc::new(vec!["a".to_string(), "b".to_string()]);
        let shape = ImageShape { h: 1, w: 2, c: 1 };
        let set = Dataset::new(
            vec![1, 2, 3, 4],
            vec![0, 1],
            shape,
            names,
            Normalization::measure(&[1, 2, 3, 4], 1),
        );
        assert_eq!((set.len(), set.is_empty(), set.classes()), (2, false, 2));
        assert_eq!((set.image(1), set.label(1)), ([3, 4].as_slice(), 1));
    }
}
