//! VGG-11/13/16/19 (Simonyan and Zisserman, 2014) as torchvision builds them, with and without batch norm.

use super::{ModelSpec, Sizes, Stem};
use crate::nn::{Builder, Init, NnError, TensorId, Window};

const STAGES: [usize; 5] = [64, 128, 256, 512, 512];
/// Units of the two hidden layers of the ImageNet head.
const HIDDEN: usize = 4096;
const DROPOUT: f32 = 0.5;

pub(super) fn build(b: &mut Builder, spec: &ModelSpec, sizes: &Sizes) -> Result<(), NnError> {
    let mut x = b.image();
    let mut index = 0; // in torchvision's `features` sequence
    for (&channels, &depth) in STAGES.iter().zip(sizes.depths) {
        for _ in 0..depth {
            let k = spec.scaled(channels);
            let (name, norm) = (format!("features.{index}"), format!("features.{}", index + 1));
            let init = Init::Normal { std: (2.0 / (9 * k) as f64).sqrt() };
            let window = Window { size: 3, stride: 1, pad: 1 };
            x = b.conv2d(&name, x, k, window, (true, !sizes.variant), init)?;
            if sizes.variant {
                let norm = b.register_batch_norm(&norm, k);
                x = b.batch_norm(&norm, x, None, true);
            }
            index += if sizes.variant { 3 } else { 2 };
        }
        x = b.max_pool(&format!("features.{index}"), x, Window { size: 2, stride: 2, pad: 0 })?;
        index += 1;
    }
    head(b, spec, x)
}

/// One linear layer on pooled features (`cifar`), or three with dropout on a 7x7 map (`imagenet`).
fn head(b: &mut Builder, spec: &ModelSpec, mut x: TensorId) -> Result<(), NnError> {
    let init = [Init::Normal { std: 0.01 }, Init::Constant(0.0)];
    match spec.stem {
        Stem::Cifar => {
            x = b.adaptive_avg_pool("avgpool", x, 1, 1);
            b.linear("classifier", x, spec.classes, false, init)?;
        }
        Stem::Imagenet => {
            x = b.adaptive_avg_pool("avgpool", x, 7, 7);
            for [linear, dropout] in [["classifier.0", "classifier.2"], ["classifier.3", "classifier.5"]] {
                x = b.linear(linear, x, spec.scaled(HIDDEN), true, init)?;
                x = b.dropout(dropout, x, DROPOUT);
            }
            b.linear("classifier.6", x, spec.classes, false, init)?;
        }
    }
    Ok(())
}
