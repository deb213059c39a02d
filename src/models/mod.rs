//! ResNet and VGG networks by name: tables of layer sizes turned into a [`Plan`].
//!
//! Names, parameter order and outputs are torchvision's, so its weights can be read and written ([`weights`]).

mod cifar_resnet;
mod error;
mod resnet;
mod vgg;
pub mod weights;

pub use error::ModelError;

use crate::nn::{Builder, NnError, Plan};
use crate::ops::input::ImageShape;
use serde::{Deserialize, Serialize};

/// First layers of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// 3x3 convolution with stride 1, no pooling; VGG: one linear layer after 512 features.
    #[default]
    Cifar,
    /// 7x7 convolution with stride 2, then max-pool; VGG: adaptive pooling to 7x7 and three linear layers.
    Imagenet,
}

/// Which network to build, and how wide.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// One of [`names`].
    pub name: String,
    /// First layers, and head of a VGG.
    pub stem: Stem,
    /// Outputs of the head, at least 1.
    pub classes: usize,
    /// Multiplies every channel count and the VGG head's hidden layers, in (0, 4]: `max(1, round(width * channels))`.
    pub width: f64,
    /// Extents of an image.
    pub image: ImageShape,
}

impl Default for ModelSpec {
    /// ResNet-20 for CIFAR-10.
    fn default() -> Self {
        Self {
            name: "resnet20".into(),
            stem: Stem::Cifar,
            classes: 10,
            width: 1.0,
            image: ImageShape { h: 32, w: 32, c: 3 },
        }
    }
}

/// Adds the layers of one family to a builder.
type Family = fn(&mut Builder, &ModelSpec, &Sizes) -> Result<(), NnError>;

/// What distinguishes the members of a family.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Blocks (ResNet) or convolutions (VGG) per stage.
    depths: &'static [usize],
    /// ResNet: bottleneck blocks; VGG: batch norm.
    variant: bool,
}

const fn sizes(depths: &'static [usize], variant: bool) -> Sizes {
    Sizes { depths, variant }
}

const MODELS: [(&str, Family, Sizes); 17] = [
    ("resnet18", resnet::build, sizes(&[2, 2, 2, 2], false)),
    ("resnet34", resnet::build, sizes(&[3, 4, 6, 3], false)),
    ("resnet50", resnet::build, sizes(&[3, 4, 6, 3], true)),
    ("resnet101", resnet::build, sizes(&[3, 4, 23, 3], true)),
    ("resnet152", resnet::build, sizes(&[3, 8, 36, 3], true)),
    ("resnet20", cifar_resnet::build, sizes(&[3, 3, 3], false)),
    ("resnet32", cifar_resnet::build, sizes(&[5, 5, 5], false)),
    ("resnet56", cifar_resnet::build, sizes(&[9, 9, 9], false)),
    ("resnet110", cifar_resnet::build, sizes(&[18, 18, 18], false)),
    ("vgg11", vgg::build, sizes(&[1, 1, 2, 2, 2], false)),
    ("vgg11_bn", vgg::build, sizes(&[1, 1, 2, 2, 2], true)),
    ("vgg13", vgg::build, sizes(&[2, 2, 2, 2, 2], false)),
    ("vgg13_bn", vgg::build, sizes(&[2, 2, 2, 2, 2], true)),
    ("vgg16", vgg::build, sizes(&[2, 2, 3, 3, 3], false)),
    ("vgg16_bn", vgg::build, sizes(&[2, 2, 3, 3, 3], true)),
    ("vgg19", vgg::build, sizes(&[2, 2, 4, 4, 4], false)),
    ("vgg19_bn", vgg::build, sizes(&[2, 2, 4, 4, 4], true)),
];

static NAMES: [&str; MODELS.len()] = {
    let mut names = [""; MODELS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = MODELS[i].0;
        i += 1;
    }
    names
};

/// Names that [`plan`] knows.
pub fn names() -> &'static [&'static str] {
    &NAMES
}

/// Whether a network of this name can have this stem: the CIFAR ResNets have only their own.
pub fn has_stem(name: &str, stem: Stem) -> bool {
    let cifar_only = cifar_resnet::build as Family;
    let entry = MODELS.iter().find(|model| model.0 == name);
    entry.is_some_and(|model| stem == Stem::Cifar || !std::ptr::fn_addr_eq(model.1, cifar_only))
}

/// The plan of a network for batches of 0 to `max_batch` images.
///
/// # Errors
/// An unknown name (with the nearest known ones), a stem the network does not have, no classes, a width outside
/// (0, 4], an image that is empty or too small, a largest batch of 0, or an arena beyond the address space.
///
/// # Example
/// ```
/// use scadles::models::{self, ModelSpec};
/// let plan = models::plan(&ModelSpec::default(), 64)?;
/// assert_eq!(plan.num_params(), 269_722); // He et al.'s ResNet-20 with parameter-free shortcuts
/// # Ok::<(), models::ModelError>(())
/// ```
pub fn plan(spec: &ModelSpec, max_batch: usize) -> Result<Plan, ModelError> {
    let Some((_, family, sizes)) = MODELS.iter().find(|model| model.0 == spec.name) else {
        return Err(ModelError::unknown(&spec.name));
    };
    if !has_stem(&spec.name, spec.stem) {
        return Err(ModelError::Stem { name: spec.name.clone() });
    }
    if spec.classes == 0 {
        return Err(ModelError::NoClasses { name: spec.name.clone() });
    }
    if !(spec.width > 0.0 && spec.width <= 4.0) {
        return Err(ModelError::Width { width: spec.width });
    }
    if [spec.image.h, spec.image.w, spec.image.c].contains(&0) {
        return Err(ModelError::EmptyImage { image: spec.image });
    }
    if max_batch == 0 {
        return Err(ModelError::NoBatch { name: spec.name.clone() });
    }
    let mut builder = Builder::new(spec.image);
    family(&mut builder, spec, sizes)
        .and_then(|()| builder.finish(max_batch))
        .map_err(|source| ModelError::Plan { name: spec.name.clone(), source })
}

impl ModelSpec {
    /// `channels` times the width factor, at least 1.
    fn scaled(&self, channels: usize) -> usize {
        ((channels as f64 * self.width).round() as usize).max(1)
    }
}
