//! Places activations and gradients in one arena by lifetime.
//!
//! Time runs over forward layers `0..L`, the loss at `L`, and backward of layer `i` at `2L - i`. An activation lives from
//! the layer that writes it to the last reader, forward or backward; a gradient from the backward of its tensor's last
//! consumer to that of its producer. A shortcut's gradient is that of the batch norm's output after the ReLU's mask, so
//! the two share a slot and the other branch is added to it. Tensors whose lives do not meet share memory. An evaluation
//! writes and reads activations in the same order as training's forward pass, so it runs in the same slots.

use super::plan::{Layer, Op, TensorId, TensorShape};
use std::ops::Range;

/// Slots begin at multiples of this many elements: one cache line of f32.
const ALIGN: usize = 16;

/// A place in the arena: `n` images lie in its first `n * per_image` elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// First element.
    pub offset: usize,
    /// Elements of one image.
    pub per_image: usize,
}

impl Slot {
    /// Elements of `n` images.
    pub const fn range(&self, n: usize) -> Range<usize> {
        self.offset..self.offset + n * self.per_image
    }
}

/// Where a layer's backward puts the gradient of one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradTarget {
    /// Nobody needs it: the input is the image.
    Skip,
    /// It is the first contribution: written.
    Write(Slot),
    /// A later contribution: written to `scratch`, then added to `sum`.
    Add {
        /// Takes this layer's contribution.
        scratch: Slot,
        /// Holds the contributions so far.
        sum: Slot,
    },
}

/// Slots of one layer besides its input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSlots {
    /// Gradient of the output; also of the shortcut, once backward has masked it.
    pub dy: Slot,
    /// Gradient of the input.
    pub dx: GradTarget,
    /// Positions of a max-pool's maxima, in bytes of a buffer of their own; empty for other layers.
    pub argmax: Slot,
}

/// The arena of a plan at its largest batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Elements (f32) of the arena.
    pub numel: usize,
    /// Bytes of the buffer of max-pool positions.
    pub argmax_bytes: usize,
    /// Slot of each tensor.
    pub tensors: Vec<Slot>,
    /// Gradient slots of each layer.
    pub layers: Vec<LayerSlots>,
}

/// A slot to place: alive from `first` to `last`, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub per_image: usize,
    pub first: usize,
    pub last: usize,
}

impl Memory {
    /// Plans `max_batch` images; `None` if the arena's size overflows.
    pub(super) fn plan(tensors: &[TensorShape], layers: &[Layer], max_batch: usize) -> Option<Self> {
        let mut lives = activation_lives(tensors, layers);
        let (grads, temporaries) = gradient_lives(tensors, layers, &mut lives);
        let (slots, numel) = place(&lives, max_batch)?;
        let target = |id: TensorId, scratch: Option<usize>| match (grads[id.0], scratch) {
            (None, _) => GradTarget::Skip,
            (Some(grad), None) => GradTarget::Write(slots[grad]),
            (Some(grad), Some(scratch)) => GradTarget::Add { scratch: slots[scratch], sum: slots[grad] },
        };
        let mut argmax_bytes = 0usize;
        let mut layer_slots = Vec::with_capacity(layers.len());
        for (layer, &scratch) in layers.iter().zip(&temporaries) {
            let is_max_pool = matches!(layer.op, Op::MaxPool2d { .. });
            let per_image = if is_max_pool { tensors[layer.y.0].numel() } else { 0 };
            let argmax = Slot { offset: argmax_bytes, per_image };
            argmax_bytes += per_image * max_batch; // below the arena's size, which did not overflow
            let dy = grads[layer.y.0].map_or(Slot::default(), |grad| slots[grad]);
            layer_slots.push(LayerSlots { dy, dx: target(layer.x, scratch), argmax });
        }
        Some(Self { numel, argmax_bytes, tensors: slots[..tensors.len()].to_vec(), layers: layer_slots })
    }
}

impl Layer {
    fn shortcut(&self) -> Option<TensorId> {
        match self.op {
            Op::BatchNorm2d { shortcut, .. } => shortcut,
            _ => None,
        }
    }

    /// Whether backward reads the input and the output.
    fn backward_reads(&self) -> (bool, bool) {
        match self.op {
            Op::Conv2d { relu, .. } | Op::BatchNorm2d { relu, .. } => (true, relu),
            Op::MaxPool2d { .. } | Op::AdaptiveAvgPool2d | Op::PadShortcut | Op::Dropout { .. } => {
                (false, false)
            }
        }
    }
}

fn activation_lives(tensors: &[TensorShape], layers: &[Layer]) -> Vec<Life> {
    let end = layers.len();
    let mut lives: Vec<Life> =
        tensors.iter().map(|shape| Life { per_image: shape.numel(), first: 0, last: 0 }).collect();
    for (i, layer) in layers.iter().enumerate() {
        let (reads_x, reads_y) = layer.backward_reads();
        let backward = 2 * end - i;
        let x = &mut lives[layer.x.0];
        x.last = x.last.max(if reads_x { backward } else { i });
        if let Some(id) = layer.shortcut() {
            lives[id.0].last = lives[id.0].last.max(i);
        }
        let y = &mut lives[layer.y.0];
        (y.first, y.last) = (i, if reads_y { backward } else { i });
    }
    if let Some(layer) = layers.last() {
        lives[layer.y.0].last = lives[layer.y.0].last.max(end);
    }
    lives
}

/// Appends the lives of gradients. Returns the gradient of each tensor and the scratch of each layer that adds.
fn gradient_lives(
    tensors: &[TensorShape],
    layers: &[Layer],
    lives: &mut Vec<Life>,
) -> (Vec<Option<usize>>, Vec<Option<usize>>) {
    let end = layers.len();
    let mut grads = vec![None; tensors.len()];
    let mut temporaries = vec![None; layers.len()];
    let mut producer = vec![0; tensors.len()];
    layers.iter().enumerate().for_each(|(i, layer)| producer[layer.y.0] = i);
    let mut add = |id: TensorId, first: usize, last: usize| {
        lives.push(Life { per_image: tensors[id.0].numel(), first, last });
        lives.len() - 1
    };
    if let Some(layer) = layers.last() {
        grads[layer.y.0] = Some(add(layer.y, end, end + 1));
    }
    let mut shared = Vec::new();
    for (i, layer) in layers.iter().enumerate().rev() {
        let now = 2 * end - i;
        if let Some(id) = layer.shortcut().filter(|id| *id != TensorId(0)) {
            assert!(
                grads[id.0].is_none(),
                "{}: its shortcut must be the last reader of that tensor",
                layer.name
            );
            grads[id.0] = grads[layer.y.0];
            shared.push((grads[id.0], 2 * end - producer[id.0]));
        }
        if layer.x != TensorId(0) {
            match grads[layer.x.0] {
                None => grads[layer.x.0] = Some(add(layer.x, now, 2 * end - producer[layer.x.0])),
                Some(_) => temporaries[i] = Some(add(layer.x, now, now)),
            }
        }
    }
    for (grad, last) in shared {
        if let Some(grad) = grad {
            lives[grad].last = lives[grad].last.max(last);
        }
    }
    (grads, temporaries)
}

/// Largest first, each at the lowest offset free during its life. Returns slots in the order of `lives`, and the size.
pub(super) fn place(lives: &[Life], max_batch: usize) -> Option<(Vec<Slot>, usize)> {
    let sizes = lives
        .iter()
        .map(|life| life.per_image.checked_mul(max_batch)?.checked_next_multiple_of(ALIGN))
        .collect::<Option<Vec<usize>>>()?;
    sizes.iter().try_fold(0usize, |sum, size| sum.checked_add(*size))?;
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));

    let mut slots = vec![Slot::default(); lives.len()];
    let mut placed: Vec<usize> = Vec::with_capacity(lives.len()); // by ascending offset
    let mut numel = 0;
    for i in order {
        let meets = |j: &&usize| lives[**j].first <= lives[i].last && lives[i].first <= lives[**j].last;
        let mut offset = 0;
        for &j in placed.iter().filter(meets) {
            if offset + sizes[i] <= slots[j].offset {
                break;
            }
            offset = offset.max(slots[j].offset + sizes[j]);
        }
        slots[i] = Slot { offset, per_image: lives[i].per_image };
        numel = numel.max(offset + sizes[i]);
        let position = placed.partition_point(|&j| slots[j].offset <= offset);
        placed.insert(position, i);
    }
    Some((slots, numel))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_alive_together_never_overlap_and_others_share() {
        let life = |per_image, first, last| Life { per_image, first, last };
        let lives =
            [life(100, 0, 9), life(40, 1, 3), life(40, 4, 6), life(60, 3, 4), life(7, 5, 9), life(0, 0, 9)];
        let (slots, numel) = place(&lives, 3).unwrap();
        for (i, a) in lives.iter().enumerate() {
            for (j, b) in lives.iter().enumerate().filter(|(j, _)| *j != i) {
                let together = a.first <= b.last && b.first <= a.last;
                let (ra, rb) = (slots[i].range(3), slots[j].range(3));
                assert!(!together || ra.end <= rb.start || rb.end <= ra.start, "{i} {j}: {ra:?} {rb:?}");
            }
            assert_eq!(slots[i].offset % ALIGN, 0);
        }
        assert_eq!(numel, 304 + 192 + 128, "the two of 40 share, the one of 7 fits beside them");
        assert!(place(&lives, usize::MAX / 64).is_none());
    }
}
