//! Labels -> the training samples that each device draws from: IID, by label, or by a Dirichlet distribution.

use crate::rng::{Philox, Stream};
use crate::train::config::Partition;
use rand_distr::{Distribution, Gamma};

/// Why samples cannot be split as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// There is no device.
    #[error("cannot split samples over 0 devices; use at least 1")]
    NoDevices,
    /// Some device would get nothing.
    #[error(
        "{devices} devices but only {samples} training samples; use at most {samples} devices or more samples"
    )]
    TooFewSamples {
        /// Number of devices.
        devices: usize,
        /// Number of samples.
        samples: usize,
    },
    /// Sample numbers would not fit in 32 bits.
    #[error("{samples} training samples are more than {}; split the data set", u32::MAX)]
    TooManySamples {
        /// Number of samples.
        samples: usize,
    },
    /// A label that no class has.
    #[error("sample {sample} has label {label}, not below {classes} classes")]
    LabelOutOfRange {
        /// Number of the sample.
        sample: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A device cannot hold so many classes, or none.
    #[error(
        "labels-per-device is {labels_per_device}, but must be 1 to {classes}, the classes that have samples"
    )]
    LabelsPerDevice {
        /// As asked.
        labels_per_device: usize,
        /// Number of classes that have samples.
        classes: usize,
    },
    /// More devices share a class than it has samples.
    #[error(
        "class {class} has {samples} samples for the {holders} devices that hold it; \
         use fewer devices, fewer labels per device, or more samples"
    )]
    ClassTooSmall {
        /// The class.
        class: usize,
        /// Its samples.
        samples: usize,
        /// Devices that hold it.
        holders: usize,
    },
    /// The concentration is not a positive number.
    #[error("the Dirichlet concentration alpha is {alpha}, but must be a finite number above 0")]
    Alpha {
        /// As asked.
        alpha: f64,
    },
}

/// Splits the samples with these `labels` over `devices`; the same `seed` gives the same split.
///
/// The result has one list per device, each in ascending order and not empty; no sample is in two lists.
///
/// - `Iid`: random equal shares (to one sample) of all samples.
/// - `Labels`: each device holds exactly `labels_per_device` classes. Every class has as many holders as any other (to
///   one device) and its samples are shared equally (to one sample) among them, so all samples are used when
///   `devices * labels_per_device >= classes`; otherwise those of the classes left over are not.
/// - `Dirichlet`: each class is split by shares drawn from a symmetric Dirichlet distribution over devices (Hsu, Qi and
///   Brown, 1909.06335, from the class's side); every sample is used. A device left empty takes one sample of the
///   device that has most.
///
/// # Errors
/// See [`PartitionError`].
///
/// # Example
/// ```
/// use scadles::data::partition;
/// use scadles::train::config::Partition;
/// let labels = [0, 1, 2, 0, 1, 2];
/// let devices = partition(&labels, 3, 3, &Partition::Labels { labels_per_device: 1 }, 1).unwrap();
/// assert!(devices.iter().all(|d| d.len() == 2 && labels[d[0] as usize] == labels[d[1] as usize]));
/// ```
pub fn partition(
    labels: &[u32],
    classes: usize,
    devices: usize,
    rule: &Partition,
    seed: u64,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let samples = labels.len();
    if devices == 0 {
        return Err(PartitionError::NoDevices);
    }
    if samples < devices {
        return Err(PartitionError::TooFewSamples { devices, samples });
    }
    if u32::try_from(samples).is_err() {
        return Err(PartitionError::TooManySamples { samples });
    }
    if let Some((sample, &label)) = labels.iter().enumerate().find(|&(_, &label)| label as usize >= classes) {
        return Err(PartitionError::LabelOutOfRange { sample, label, classes });
    }
    let mut random = Philox::new(seed, Stream::Partition, 0);
    let mut parts = match *rule {
        Partition::Iid => iid(samples, devices, &mut random),
        Partition::Labels { labels_per_device } => by_label(
            &samples_of_classes(labels, classes, &mut random),
            devices,
            labels_per_device,
            &mut random,
        )?,
        Partition::Dirichlet { alpha } => {
            if !(alpha > 0.0 && alpha.is_finite()) {
                return Err(PartitionError::Alpha { alpha });
            }
            dirichlet(&samples_of_classes(labels, classes, &mut random), devices, alpha, &mut random)
        }
    };
    parts.iter_mut().for_each(|part| part.sort_unstable());
    Ok(parts)
}

/// Equal shares of all samples in random order.
fn iid(samples: usize, devices: usize, random: &mut Philox) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..samples as u32).collect();
    random.shuffle(&mut order);
    (0..devices).map(|device| share(&order, device, devices).to_vec()).collect()
}

/// Each device holds `per_device` neighbours on a ring of the classes in random order.
fn by_label(
    samples_of: &[Vec<u32>],
    devices: usize,
    per_device: usize,
    random: &mut Philox,
) -> Result<Vec<Vec<u32>>, PartitionError> {
    let mut ring: Vec<usize> = (0..samples_of.len()).filter(|&class| !samples_of[class].is_empty()).collect();
    if per_device == 0 || per_device > ring.len() {
        return Err(PartitionError::LabelsPerDevice { labels_per_device: per_device, classes: ring.len() });
    }
    random.shuffle(&mut ring);
    let mut holders_of = vec![Vec::new(); ring.len()];
    for place in 0..devices * per_device {
        holders_of[place % ring.len()].push(place / per_device);
    }
    let mut parts = vec![Vec::new(); devices];
    for (&class, holders) in ring.iter().zip(&holders_of) {
        let samples = &samples_of[class];
        if samples.len() < holders.len() {
            return Err(PartitionError::ClassTooSmall {
                class,
                samples: samples.len(),
                holders: holders.len(),
            });
        }
        for (position, &device) in holders.iter().enumerate() {
            parts[device].extend_from_slice(share(samples, position, holders.len()));
        }
    }
    Ok(parts)
}

/// Cuts each class at the cumulated shares of the devices.
fn dirichlet(samples_of: &[Vec<u32>], devices: usize, alpha: f64, random: &mut Philox) -> Vec<Vec<u32>> {
    let mut parts = vec![Vec::new(); devices];
    for samples in samples_of {
        let shares = dirichlet_shares(devices, alpha, random);
        let (mut cumulated, mut start) = (0.0, 0);
        for (device, part) in parts.iter_mut().enumerate() {
            cumulated += shares[device];
            let cut = (cumulated * samples.len() as f64).round() as usize;
            let end = if device + 1 == devices { samples.len() } else { cut.clamp(start, samples.len()) };
            part.extend_from_slice(&samples[start..end]);
            start = end;
        }
    }
    while let Some(empty) = parts.iter().position(Vec::is_empty) {
        // There are at least as many samples as devices, so the largest part has two or more. Ties: lower index.
        let largest = (0..devices).rev().max_by_key(|&device| parts[device].len()).unwrap_or(0);
        let moved = parts[largest].pop();
        parts[empty].extend(moved);
    }
    parts
}

/// One draw from the symmetric Dirichlet distribution, sum 1.
fn dirichlet_shares(devices: usize, alpha: f64, random: &mut Philox) -> Vec<f64> {
    // Gamma(alpha) = Gamma(alpha + 1) * U^(1/alpha), kept as a logarithm: for small alpha every draw underflows.
    let gamma = Gamma::new(alpha + 1.0, 1.0).expect("alpha is finite and above 0");
    let logs: Vec<f64> =
        (0..devices).map(|_| gamma.sample(random).ln() + (1.0 - random.uniform_f64()).ln() / alpha).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> =
        logs.iter().map(|log| if *log == largest { 1.0 } else { (log - largest).exp() }).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

/// Sample numbers of each class in random order.
fn samples_of_classes(labels: &[u32], classes: usize, random: &mut Philox) -> Vec<Vec<u32>> {
    let mut samples_of = vec![Vec::new(); classes];
    for (sample, &label) in labels.iter().enumerate() {
        samples_of[label as usize].push(sample as u32);
    }
    samples_of.iter_mut().for_each(|samples| random.shuffle(samples));
    samples_of
}

/// Part `position` of `parts` equal ones (to one element) of `items`.
fn share(items: &[u32], position: usize, parts: usize) -> &[u32] {
    &items[items.len() * position / parts..items.len() * (position + 1) / parts]
}
