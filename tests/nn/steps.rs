use super::Net;
use half::bf16;
use scadles::models::{self, ModelSpec, Stem};
use scadles::nn::{DropoutSeed, Executor, NnError, Packing, Plan};
use scadles::ops::conv2d::CpuElement;
use std::sync::Arc;

/// One network of each kind: option A, bottleneck with pooling stem, VGG with dropout.
fn nets(max_batch: usize) -> Vec<Net> {
    vec![
        Net::new("resnet20", Stem::Cifar, 0.5, [13, 10, 3], max_batch),
        Net::new("resnet50", Stem::Imagenet, 0.1, [32, 40, 3], max_batch),
        Net::new("vgg11", Stem::Imagenet, 0.05, [32, 32, 3], max_batch),
        Net::new("vgg11_bn", Stem::Cifar, 0.1, [32, 32, 1], max_batch),
    ]
}

#[test]
fn a_smaller_batch_after_a_larger_one_sees_no_stale_data() {
    for (mut used, mut fresh) in nets(9).into_iter().zip(nets(9)) {
        let small = used.batch(1, 3);
        let large = used.batch(2, 9);
        let first_stats = used.stats.clone();
        used.step(&large);
        used.stats = first_stats;
        assert_eq!(used.step(&small), fresh.step(&small));
        assert!(used.grad == fresh.grad && used.stats == fresh.stats, "bytes differ after a larger batch");
        let evaluate = |net: &mut Net, (x, labels): &(Vec<f32>, Vec<u32>)| {
            net.executor.evaluate(x, labels, &net.params, &net.stats).unwrap()
        };
        evaluate(&mut used, &large);
        assert_eq!(evaluate(&mut used, &small), evaluate(&mut fresh, &small));
    }
}

#[test]
fn the_planned_maximum_does_not_change_results() {
    for (mut tight, mut roomy) in nets(2).into_iter().zip(nets(33)) {
        let batch = tight.batch(3, 2);
        assert_eq!(tight.step(&batch), roomy.step(&batch));
        assert!(tight.grad == roomy.grad && tight.stats == roomy.stats);
    }
}

#[test]
fn no_images_give_no_gradient_and_change_no_statistics() {
    for mut net in nets(2) {
        let before = net.stats.clone();
        let loss = net.step(&(vec![], vec![]));
        assert_eq!((loss.loss_sum, loss.top1, loss.top5), (0.0, 0, 0));
        assert!(net.grad.iter().all(|&g| g == 0.0));
        assert_eq!(net.stats, before);
        assert_eq!(net.executor.evaluate(&[], &[], &net.params, &net.stats).unwrap(), loss);
        net.executor.logits(&[], 0, &net.params, &net.stats, &mut []).unwrap();
    }
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            nets(11)
                .into_iter()
                .map(|mut net| {
                    let batch = net.batch(4, 11);
                    let loss = net.step(&batch);
                    let mut logits = vec![0.0; 11 * 5];
                    net.executor.logits(&batch.0, 11, &net.params, &net.stats, &mut logits).unwrap();
                    (loss, net.grad, net.stats, logits)
                })
                .collect::<Vec<_>>()
        })
    };
    let one = run(1);
    assert!(one.iter().all(|(loss, grad, ..)| loss.loss_sum.is_finite() && grad.iter().any(|&g| g != 0.0)));
    for threads in [2, 3] {
        assert!(one == run(threads), "{threads} threads give other bytes than 1");
    }
}

#[test]
fn filters_packed_on_use_give_the_same_bytes_in_less_memory() {
    fn check<E: CpuElement>(plan: Arc<Plan>) {
        let mut nets = [Packing::Kept, Packing::OnUse].map(|packing| {
            let mut net = Net::<E>::stored(plan.clone());
            net.executor = Executor::with_packing(plan.clone(), packing).unwrap();
            net.executor.load_params(&net.params).unwrap();
            net
        });
        let batch = nets[0].batch(3, 4);
        let [kept, on_use] = nets.each_mut().map(|net| {
            net.step(&batch);
            let loss = net.executor.evaluate(&batch.0, &batch.1, &net.params, &net.stats).unwrap();
            (net.grad.clone(), net.stats.clone(), loss, net.executor.memory_bytes())
        });
        assert!((&kept.0, &kept.1, kept.2) == (&on_use.0, &on_use.1, on_use.2), "results differ");
        assert!(on_use.3 < kept.3, "{} bytes on use, {} kept", on_use.3, kept.3);
    }
    for net in nets(4) {
        check::<f32>(net.plan.clone());
        check::<bf16>(net.plan);
    }
}

#[test]
fn two_batches_make_their_sum_without_batch_norm() {
    // The gradient is of the mean loss: n1 g1 + n2 g2 = (n1 + n2) g. Each element is a sum that f32 keeps to 1e-5.
    let mut net = Net::new("vgg11", Stem::Cifar, 0.1, [32, 32, 3], 7);
    let (x, labels) = net.batch(5, 7);
    let split = 3 * net.plan.image().numel();
    let mut sum = vec![0.0; net.grad.len()];
    for (x, labels) in [(&x[..split], &labels[..3]), (&x[split..], &labels[3..])] {
        net.step(&(x.to_vec(), labels.to_vec()));
        sum.iter_mut().zip(&net.grad).for_each(|(s, g)| *s += g * labels.len() as f32);
    }
    net.step(&(x, labels));
    for entry in net.plan.params() {
        let scale = net.grad[entry.range.clone()].iter().fold(0f32, |max, g| max.max(g.abs()));
        for i in entry.range.clone() {
            assert!((sum[i] / 7.0 - net.grad[i]).abs() <= 2e-5 * scale, "{} {i}", entry.name);
        }
    }
}

#[test]
fn dropout_depends_on_its_seed_and_only_in_training() {
    let mut net = Net::new("vgg11", Stem::Imagenet, 0.05, [32, 32, 3], 4);
    let (x, labels) = net.batch(6, 4);
    let mut loss = |seed, index| {
        let dropout = DropoutSeed { seed, index };
        let Net { executor, params, stats, grad, .. } = &mut net;
        executor.forward_backward(&x, &labels, params, stats, grad, dropout).unwrap().loss_sum
    };
    assert_eq!(loss(1, 0), loss(1, 0));
    assert_ne!(loss(1, 0), loss(1, 1));
    assert_ne!(loss(1, 0), loss(2, 0));
}

#[test]
fn one_batch_is_learnt_by_heart() {
    for mut net in [
        Net::new("resnet20", Stem::Cifar, 0.5, [12, 12, 3], 16),
        Net::new("vgg11_bn", Stem::Cifar, 0.1, [32, 32, 3], 16),
    ] {
        let batch = net.batch(7, 16);
        let mut momentum = vec![0f32; net.params.len()];
        let first = net.step(&batch).loss_sum;
        for _ in 0..60 {
            net.step(&batch);
            for ((p, m), g) in net.params.iter_mut().zip(&mut momentum).zip(&net.grad) {
                *m = 0.9 * *m + g;
                *p -= 0.05 * *m;
            }
            net.executor.load_params(&net.params).unwrap();
        }
        let last = net.step(&batch);
        assert!(last.loss_sum < 0.05 * first && last.top1 == 16, "loss {first} -> {last:?}");
    }
}

#[test]
fn calls_that_do_not_fit_are_errors() {
    let mut net = Net::new("resnet20", Stem::Cifar, 0.1, [8, 8, 3], 2);
    let (x, labels) = net.batch(8, 2);
    let dropout = DropoutSeed { seed: 0, index: 0 };
    let Net { plan, executor, params, stats, grad } = &mut net;
    let length = |what, expected, found| Err(NnError::Length { what, expected, found });

    let three = [0, 1, 2];
    let too_many = executor.forward_backward(&x, &three, params, stats, grad, dropout);
    assert_eq!(too_many, Err(NnError::BatchTooLarge { max: 2, found: 3 }));
    assert_eq!(executor.evaluate(&x[1..], &labels, params, stats), length("x", 384, 383));
    assert_eq!(
        executor.evaluate(&x, &labels, &params[1..], stats),
        length("params", params.len(), params.len() - 1)
    );
    assert_eq!(
        executor.evaluate(&x, &labels, params, &stats[1..]),
        length("stats", stats.len(), stats.len() - 1)
    );
    let short = executor.forward_backward(&x, &labels, params, stats, &mut grad[1..], dropout);
    assert_eq!(short, length("grad", params.len(), params.len() - 1));
    let mut out = [0.0; 9];
    assert!(matches!(
        executor.logits(&x, 2, params, stats, &mut out),
        Err(NnError::Length { what: "out", .. })
    ));
    assert!(matches!(executor.load_params(&params[1..]), Err(NnError::Length { what: "params", .. })));

    let before = stats.clone();
    let bad_label = executor.forward_backward(&x, &[0, 5], params, stats, grad, dropout).unwrap_err();
    assert!(bad_label.to_string().contains("label 5"), "{bad_label}");
    assert_eq!(*stats, before, "a refused batch leaves the statistics alone");
    let mut unloaded = Executor::<f32>::new(plan.clone()).unwrap();
    assert_eq!(unloaded.evaluate(&x, &labels, params, stats), Err(NnError::NoParams));
}

#[test]
fn a_batch_beyond_all_memory_is_an_error() {
    for max_batch in [1 << 40, 1 << 44] {
        let spec = ModelSpec { name: "vgg11".into(), ..ModelSpec::default() };
        let plan = Arc::new(models::plan(&spec, max_batch).unwrap());
        let error = Executor::<f32>::new(plan).unwrap_err();
        assert!(matches!(error, NnError::OutOfMemory { what: "activations", .. }), "{error}");
    }
}
