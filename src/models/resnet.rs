//! ResNet-18/34/50/101/152 (He et al., 2015) as torchvision builds them: stride on the 3x3 convolution of a bottleneck.

use super::{ModelSpec, Sizes, Stem};
use crate::nn::{BatchNormParams, Builder, Init, NnError, TensorId, Window};

const STAGES: [usize; 4] = [64, 128, 256, 512];
/// Output channels of a bottleneck per inner channel.
const EXPANSION: usize = 4;

pub(super) fn build(b: &mut Builder, spec: &ModelSpec, sizes: &Sizes) -> Result<(), NnError> {
    let mut x = stem(b, spec)?;
    for (stage, (&channels, &depth)) in STAGES.iter().zip(sizes.depths).enumerate() {
        for block in 0..depth {
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            x = residual_block(b, &name, x, spec.scaled(channels), stride, sizes.variant)?;
        }
    }
    x = b.adaptive_avg_pool("avgpool", x, 1, 1);
    let bound = (b.shape(x).numel() as f64).powf(-0.5);
    b.linear("fc", x, spec.classes, false, [Init::Uniform { bound }; 2])?;
    Ok(())
}

fn stem(b: &mut Builder, spec: &ModelSpec) -> Result<TensorId, NnError> {
    let (size, stride, pad) = match spec.stem {
        Stem::Cifar => (3, 1, 1),
        Stem::Imagenet => (7, 2, 3),
    };
    let x = conv(b, "conv1", b.image(), spec.scaled(STAGES[0]), Window { size, stride, pad })?;
    let bn = bn(b, "bn1", x);
    let x = b.batch_norm(&bn, x, None, true);
    match spec.stem {
        Stem::Cifar => Ok(x),
        Stem::Imagenet => b.max_pool("maxpool", x, Window { size: 3, stride: 2, pad: 1 }),
    }
}

/// Two 3x3 convolutions, or 1x1, 3x3, 1x1 to `EXPANSION` times the channels, added to the shortcut.
fn residual_block(
    b: &mut Builder,
    name: &str,
    x: TensorId,
    channels: usize,
    stride: usize,
    bottleneck: bool,
) -> Result<TensorId, NnError> {
    let (w1x1, w3x3) = (Window { size: 1, stride: 1, pad: 0 }, Window { size: 3, stride: 1, pad: 1 });
    let strided = Window { stride, ..w3x3 };
    let convs: &[(usize, Window)] = if bottleneck {
        &[(channels, w1x1), (channels, strided), (EXPANSION * channels, w1x1)]
    } else {
        &[(channels, strided), (channels, w3x3)]
    };
    let mut y = x;
    for (i, &(k, window)) in convs.iter().enumerate() {
        y = conv(b, &format!("{name}.conv{}", i + 1), y, k, window)?;
        let last = i + 1 == convs.len();
        let norm = bn(b, &format!("{name}.bn{}", i + 1), y);
        let shortcut = if last { Some(downsample(b, name, x, y, stride)?) } else { None };
        y = b.batch_norm(&norm, y, shortcut, true);
    }
    Ok(y)
}

/// `x` itself, or projected to the shape of `y`.
fn downsample(
    b: &mut Builder,
    name: &str,
    x: TensorId,
    y: TensorId,
    stride: usize,
) -> Result<TensorId, NnError> {
    let k = b.shape(y).c;
    if stride == 1 && b.shape(x).c == k {
        return Ok(x);
    }
    let projected = conv(b, &format!("{name}.downsample.0"), x, k, Window { size: 1, stride, pad: 0 })?;
    let norm = bn(b, &format!("{name}.downsample.1"), projected);
    Ok(b.batch_norm(&norm, projected, None, false))
}

fn bn(b: &mut Builder, name: &str, x: TensorId) -> BatchNormParams {
    let c = b.shape(x).c;
    b.register_batch_norm(name, c)
}

fn conv(b: &mut Builder, name: &str, x: TensorId, k: usize, window: Window) -> Result<TensorId, NnError> {
    let fan_out = (k * window.size * window.size) as f64;
    b.conv2d(name, x, k, window, (false, false), Init::Normal { std: (2.0 / fan_out).sqrt() })
}
