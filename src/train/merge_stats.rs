//! Batch-norm running statistics of the whole cluster from those of its devices.

use crate::comm::{CommError, Communicator, Traffic};
use crate::nn::{StatsEntry, StatsKind};

/// Mean and variance of the mixture of all devices' activations: `mean = sum w_i mean_i`, then
/// `var = sum w_i (var_i + (mean_i - mean)^2)`, with weights that sum to 1 over all devices.
///
/// `hosted` yields the statistics and the weight of each device of this process; `merged` is overwritten. Two small
/// all-reduces: moments about the merged mean do not cancel, however large the mean.
pub(crate) fn merge_stats<'a>(
    entries: &[StatsEntry],
    hosted: impl Iterator<Item = (&'a [f32], f64)> + Clone,
    comm: &mut dyn Communicator,
    merged: &mut [f32],
) -> Result<Traffic, CommError> {
    let weighted_sum = |value: &dyn Fn(&[f32]) -> f64| -> f32 {
        hosted.clone().map(|(stats, weight)| weight * value(stats)).sum::<f64>() as f32
    };
    merged.fill(0.0);
    for (mean, _) in mean_and_var(entries) {
        mean.for_each(|m| merged[m] = weighted_sum(&|stats| f64::from(stats[m])));
    }
    let mut traffic = comm.all_reduce_sum(merged)?;
    let mut variances = vec![0.0f32; merged.len()];
    for (mean, var) in mean_and_var(entries) {
        for (m, v) in mean.zip(var) {
            let center = f64::from(merged[m]);
            variances[v] =
                weighted_sum(&|stats| f64::from(stats[v]) + (f64::from(stats[m]) - center).powi(2));
        }
    }
    traffic += comm.all_reduce_sum(&mut variances)?;
    for (_, var) in mean_and_var(entries) {
        merged[var.clone()].copy_from_slice(&variances[var]);
    }
    Ok(traffic)
}

fn mean_and_var(
    entries: &[StatsEntry],
) -> impl Iterator<Item = (std::ops::Range<usize>, std::ops::Range<usize>)> {
    entries.chunks_exact(2).map(|pair| {
        assert!(
            pair[0].kind == StatsKind::RunningMean && pair[1].kind == StatsKind::RunningVar,
            "statistics come as running mean, running variance"
        );
        (pair[0].range.clone(), pair[1].range.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Link;
    use crate::comm::LocalCommunicator;
    use crate::train::config::LinkConfig;

    #[test]
    fn merged_statistics_are_those_of_the_joined_samples() {
        let entry = |name: &str, range, kind| StatsEntry { name: name.into(), range, kind };
        let entries = [
            entry("bn.running_mean", 0..1, StatsKind::RunningMean),
            entry("bn.running_var", 1..2, StatsKind::RunningVar),
        ];
        // Three samples 1000, 1001, 1002 on one device and one sample 1005 on the other.
        let (first, second) = ([1001.0f32, 2.0 / 3.0], [1005.0f32, 0.0]);
        let mut comm = LocalCommunicator::new(2, Link::new(&LinkConfig::default()));
        let mut merged = [9.0; 2];
        let hosted = [(&first[..], 0.75), (&second[..], 0.25)];
        merge_stats(&entries, hosted.into_iter(), &mut comm, &mut merged).unwrap();
        let samples = [1000.0f64, 1001.0, 1002.0, 1005.0];
        let mean = samples.iter().sum::<f64>() / 4.0;
        let var = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0;
        assert_eq!(f64::from(merged[0]), mean);
        assert!((f64::from(merged[1]) - var).abs() < 1e-5, "{} against {var}", merged[1]);
    }
}
