//! ResNet-20/32/56/110 for small images (He et al., 2015, section 4.2): 16, 32, 64 channels, parameter-free shortcuts
//! (option A), module names in torchvision's manner.

use super::{ModelSpec, Sizes};
use crate::nn::{Builder, Init, NnError, TensorId, Window};

const STAGES: [usize; 3] = [16, 32, 64];

pub(super) fn build(b: &mut Builder, spec: &ModelSpec, sizes: &Sizes) -> Result<(), NnError> {
    let mut x = conv_bn_relu(b, ["conv1", "bn1"], b.image(), spec.scaled(STAGES[0]), 1, None)?;
    for (stage, (&channels, &depth)) in STAGES.iter().zip(sizes.depths).enumerate() {
        for block in 0..depth {
            let stride = if block == 0 && stage > 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            x = residual_block(b, &name, x, spec.scaled(channels), stride)?;
        }
    }
    x = b.adaptive_avg_pool("avgpool", x, 1, 1);
    let fan_in = b.shape(x).numel() as f64;
    let bias = Init::Uniform { bound: fan_in.powf(-0.5) };
    b.linear("fc", x, spec.classes, false, [Init::Normal { std: (2.0 / fan_in).sqrt() }, bias])?;
    Ok(())
}

fn residual_block(
    b: &mut Builder,
    name: &str,
    x: TensorId,
    k: usize,
    stride: usize,
) -> Result<TensorId, NnError> {
    let names = |i: usize| [format!("{name}.conv{i}"), format!("{name}.bn{i}")];
    let [conv1, bn1] = names(1);
    let y = conv_bn_relu(b, [&conv1, &bn1], x, k, stride, None)?;
    let keeps_shape = stride == 1 && b.shape(x).c == k;
    let shortcut = if keeps_shape { x } else { b.pad_shortcut(&format!("{name}.shortcut"), x, k) };
    let [conv2, bn2] = names(2);
    conv_bn_relu(b, [&conv2, &bn2], y, k, 1, Some(shortcut))
}

fn conv_bn_relu(
    b: &mut Builder,
    [conv, bn]: [&str; 2],
    x: TensorId,
    k: usize,
    stride: usize,
    shortcut: Option<TensorId>,
) -> Result<TensorId, NnError> {
    let fan_in = (9 * b.shape(x).c) as f64;
    let init = Init::Normal { std: (2.0 / fan_in).sqrt() };
    let y = b.conv2d(conv, x, k, Window { size: 3, stride, pad: 1 }, (false, false), init)?;
    let norm = b.register_batch_norm(bn, k);
    Ok(b.batch_norm(&norm, y, shortcut, true))
}
