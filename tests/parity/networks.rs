//! Whole networks: logits, loss, the norm and a projection of every gradient, running statistics, ten training losses.
//!
//! # Tolerances
//! f32 rounds at 6e-8; through tens of layers, each a sum over hundreds to thousands of terms, the difference grows to
//! about 1e-6 of the largest logit and 1e-5 of a gradient. That is what most gradients are held to (the median, with a
//! margin of ten). A single ReLU input so close to 0 that rounding decides on its sign moves all gradients before it by up to 1
//! percent in these narrow networks, in PyTorch's own f32 too, and which one it is differs between CPUs: the bound of
//! each gradient. A wrong formula, a missed term or a permuted filter shows at 0.1 and above; the projection of each
//! gradient on random numbers sees what its norm cannot. Training amplifies differences from step to step.

use super::close;
use super::formula::{channels_last, labels, uniform, values};
use scadles::models::{self, ModelSpec, Stem};
use scadles::nn::{DropoutSeed, Executor, ParamKind, Plan};
use scadles::ops::input::ImageShape;
use serde::Deserialize;
use std::sync::Arc;

const LOGITS: f64 = 1e-5;
const LOSS: f64 = 2e-5;
const GRADIENT: f64 = 2e-2;
const MEDIAN_GRADIENT: f64 = 2e-4;
const STATS: f64 = 1e-5;
const LOSS_AFTER_STEPS: f64 = 2e-3;

/// The masks that scripts/make_fixtures.py drew.
const DROPOUT: DropoutSeed = DropoutSeed { seed: 5, index: 3 };

#[derive(Deserialize)]
struct Fixtures {
    networks: Vec<Network>,
}

#[derive(Deserialize)]
struct Network {
    model: String,
    stem: Stem,
    width: f64,
    n: usize,
    image: [usize; 3],
    classes: usize,
    eval_logits: Vec<f32>,
    eval_loss: f64,
    train_loss: f64,
    /// Name, shape, norm of the gradient, its projection on `uniform(name + ".probe")`.
    params: Vec<(String, Vec<usize>, f64, f64)>,
    /// Name, norm, projection of running statistics after one step.
    stats: Vec<(String, f64, f64)>,
    lr: Option<f64>,
    losses: Option<Vec<f64>>,
}

/// A network with the formula's parameters and statistics.
struct Running {
    plan: Arc<Plan>,
    executor: Executor,
    params: Vec<f32>,
    stats: Vec<f32>,
}

impl Network {
    fn start(&self) -> Running {
        let [h, w, c] = self.image;
        let spec = ModelSpec {
            name: self.model.clone(),
            stem: self.stem,
            classes: self.classes,
            width: self.width,
            image: ImageShape { h, w, c },
        };
        let plan = Arc::new(models::plan(&spec, self.n + 1).unwrap());
        let mut params = vec![0.0; plan.num_params()];
        for entry in plan.params() {
            entry.import(
                &values(&entry.name, &entry.dims, entry.kind == ParamKind::Beta),
                &mut params[entry.range.clone()],
            );
        }
        let stats = plan.stats().iter().flat_map(|e| values(&e.name, &[e.range.len()], false)).collect();
        let mut executor = Executor::new(plan.clone()).unwrap();
        executor.load_params(&params).unwrap();
        Running { plan, executor, params, stats }
    }

    fn batch(&self, step: usize) -> (Vec<f32>, Vec<u32>) {
        let [h, w, c] = self.image;
        let planar: Vec<f32> =
            uniform(&format!("image{step}"), self.n * h * w * c).iter().map(|u| u * 2.0).collect();
        (channels_last(&planar, c, h * w), labels(&format!("label{step}"), self.n, self.classes))
    }

    fn name(&self) -> String {
        format!("{} {:?} width {}", self.model, self.stem, self.width)
    }

    /// Worst shares of the tolerances of logits, losses, gradients and statistics.
    fn check_one_step(&self) -> [f64; 4] {
        let Running { plan, mut executor, params, mut stats } = self.start();
        let (x, labels) = self.batch(0);
        let name = self.name();

        let mut logits = vec![f32::NAN; self.n * self.classes];
        executor.logits(&x, self.n, &params, &stats, &mut logits).unwrap();
        let logits = close(&format!("{name} logits"), &logits, &self.eval_logits, LOGITS);
        let eval = executor.evaluate(&x, &labels, &params, &stats).unwrap();
        let eval_loss =
            self.share(&format!("{name} eval loss"), eval.loss_sum / self.n as f64, self.eval_loss, LOSS);

        let mut grad = vec![f32::NAN; plan.num_params()];
        let train = executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, DROPOUT).unwrap();
        let loss = self.share(&format!("{name} loss"), train.loss_sum / self.n as f64, self.train_loss, LOSS);

        // Very small gradients are judged by the whole gradient.
        let total = self.params.iter().map(|(_, _, norm, _)| norm * norm).sum::<f64>().sqrt();
        assert_eq!(plan.params().len(), self.params.len(), "{name}: number of tensors");
        let mut shares = Vec::new();
        for (entry, (torch_name, dims, norm, projection)) in plan.params().iter().zip(&self.params) {
            assert_eq!((&entry.name, &entry.dims), (torch_name, dims), "{name}");
            let mut planar = vec![0.0; entry.numel()];
            entry.export(&grad[entry.range.clone()], &mut planar);
            // The bias before a batch norm has gradient 0, as a sum that cancels.
            let tolerance = if entry.kind == ParamKind::Bias && *norm < 1e-12 { 1.0 } else { GRADIENT };
            let want = [*norm, *projection];
            shares.push(check_tensor(&name, torch_name, &planar, want, tolerance, 1e-4 * total));
        }
        shares.sort_by(f64::total_cmp);
        let (median, worst) = (shares[shares.len() / 2] * GRADIENT, shares[shares.len() - 1]);
        assert!(median <= MEDIAN_GRADIENT, "{name}: half of the gradients differ by {median} and more");
        let mut worst_stats = 0f64;
        for (entry, (torch_name, norm, projection)) in plan.stats().iter().zip(&self.stats) {
            assert_eq!(&entry.name, torch_name, "{name}");
            let tensor = &stats[entry.range.clone()];
            worst_stats =
                worst_stats.max(check_tensor(&name, torch_name, tensor, [*norm, *projection], STATS, 1e-3));
        }
        [logits, eval_loss.max(loss), worst, worst_stats]
    }

    /// SGD with momentum 0.9 and weight decay 5e-4 on a new batch each step, as torch.optim.SGD.
    fn check_training(&self, lr: f64, losses: &[f64]) -> f64 {
        let Running { plan, mut executor, mut params, mut stats } = self.start();
        let mut grad = vec![0.0; plan.num_params()];
        let mut momentum = vec![0f32; params.len()];
        let mut worst = 0f64;
        for (step, &want) in losses.iter().enumerate() {
            let (x, labels) = self.batch(step);
            let loss =
                executor.forward_backward(&x, &labels, &params, &mut stats, &mut grad, DROPOUT).unwrap();
            let what = format!("{} loss of step {step}", self.name());
            let tolerance = if step == 0 { LOSS } else { LOSS_AFTER_STEPS };
            worst = worst.max(self.share(&what, loss.loss_sum / self.n as f64, want, tolerance));
            for ((p, m), g) in params.iter_mut().zip(&mut momentum).zip(&grad) {
                *m = 0.9 * *m + (g + 5e-4 * *p);
                *p -= lr as f32 * *m;
            }
            executor.load_params(&params).unwrap();
        }
        worst
    }

    fn share(&self, what: &str, got: f64, want: f64, tolerance: f64) -> f64 {
        let share = (got - want).abs() / (tolerance * want.abs());
        assert!(share <= 1.0, "{what}: got {got}, PyTorch {want}, {share:.2} of the tolerance");
        share
    }
}

/// Compares norm and projection; the tolerance is relative to the norm, above a floor of `tolerance * floor`.
fn check_tensor(network: &str, name: &str, got: &[f32], want: [f64; 2], tolerance: f64, floor: f64) -> f64 {
    let probe = uniform(&format!("{name}.probe"), got.len());
    let norm = got.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
    let projection = got.iter().zip(&probe).map(|(&g, &u)| f64::from(g) * f64::from(u)).sum::<f64>();
    let scale = want[0].max(floor);
    let share = [norm, projection]
        .iter()
        .zip(want)
        .map(|(got, want)| (got - want).abs() / (tolerance * scale))
        .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    assert!(
        share <= 1.0,
        "{network} {name}: norm and projection {norm}, {projection}, PyTorch {want:?}, {share:.2} of the tolerance"
    );
    share
}

fn fixtures() -> Vec<Network> {
    let text = std::fs::read_to_string("tests/fixtures/networks.json").unwrap();
    serde_json::from_str::<Fixtures>(&text).unwrap().networks
}

#[test]
fn one_step_of_every_network() {
    for network in fixtures() {
        let [logits, loss, gradients, stats] = network.check_one_step();
        println!(
            "{}: share of tolerance: logits {logits:.3}, loss {loss:.3}, gradients {gradients:.3}, statistics {stats:.3}",
            network.name()
        );
    }
}

#[test]
fn ten_training_losses() {
    let mut trained = 0;
    for network in fixtures() {
        if let (Some(lr), Some(losses)) = (network.lr, &network.losses) {
            assert_eq!(losses.len(), 10);
            println!("{}: share of tolerance {:.3}", network.name(), network.check_training(lr, losses));
            trained += 1;
        }
    }
    assert!(trained >= 4, "only {trained} networks have training losses");
}
