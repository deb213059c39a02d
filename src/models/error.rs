//! Why a network cannot be built.

use super::names;
use crate::nearest::edits;
use crate::nn::NnError;
use crate::ops::input::ImageShape;
use thiserror::Error;

/// A specification without a network.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No network of this name.
    #[error("unknown model '{name}'; nearest: {}; `scadles models` lists all", nearest.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// Known names, nearest first.
        nearest: Vec<&'static str>,
    },
    /// A CIFAR ResNet with another stem.
    #[error("{name} has only the stem 'cifar'; for 'imagenet' take resnet18 or a deeper one")]
    Stem {
        /// The network.
        name: String,
    },
    /// A head without outputs.
    #[error("{name} with 0 classes: a network needs at least 1")]
    NoClasses {
        /// The network.
        name: String,
    },
    /// A width factor out of range.
    #[error("width {width} is not in (0, 4]; 1 is the published network")]
    Width {
        /// The factor.
        width: f64,
    },
    /// An image with an extent of 0.
    #[error("images of {}x{}x{} (height x width x channels) hold no pixel", image.h, image.w, image.c)]
    EmptyImage {
        /// The extents.
        image: ImageShape,
    },
    /// A largest batch of 0.
    #[error("{name} planned for batches of at most 0 images: plan for at least 1")]
    NoBatch {
        /// The network.
        name: String,
    },
    /// The layers do not fit the image, or memory.
    #[error("{name}: {source}")]
    Plan {
        /// The network.
        name: String,
        /// What does not fit.
        source: NnError,
    },
}

impl ModelError {
    /// The error for `name`, with the three nearest known names.
    pub(super) fn unknown(name: &str) -> Self {
        let mut nearest = names().to_vec();
        nearest.sort_by_key(|known| edits(&name.to_lowercase(), known));
        nearest.truncate(3);
        Self::Unknown { name: name.into(), nearest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names_come_first() {
        let ModelError::Unknown { nearest, .. } = ModelError::unknown("ResNet-18") else { panic!() };
        assert_eq!(nearest[0], "resnet18");
        let ModelError::Unknown { nearest, .. } = ModelError::unknown("vgg19bn") else { panic!() };
        assert_eq!(nearest[0], "vgg19_bn");
    }
}
