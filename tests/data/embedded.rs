//! Properties of the embedded data set: reproducible, balanced, and not for linear classifiers.

use scadles::data::{Dataset, embedded};
use scadles::rng::{Philox, Stream};

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

#[test]
fn images_depend_on_seed_and_index_alone() {
    let one = pool(1).install(|| embedded(7, 200, 50));
    let three = pool(3).install(|| embedded(7, 333, 91));
    for (short, long) in [(&one.train, &three.train), (&one.test, &three.test)] {
        assert_eq!(short.images(), &long.images()[..short.images().len()]);
        assert_eq!(short.labels(), &long.labels()[..short.len()]);
    }
    let other = embedded(8, 200, 50);
    let same = (0..200).filter(|&i| one.train.image(i) == other.train.image(i)).count();
    assert_eq!(same, 0, "another seed draws other images");
    assert_ne!(one.train.labels(), other.train.labels(), "in another order");
    assert_ne!(one.train.image(0), one.test.image(0));
}

#[test]
fn classes_are_balanced() {
    let sets = embedded(1, 1003, 10);
    let counts = |set: &Dataset| -> Vec<usize> {
        (0..10).map(|class| set.labels().iter().filter(|&&label| label == class).count()).collect()
    };
    assert!(counts(&sets.train).iter().all(|&count| count == 100 || count == 101));
    assert_eq!(counts(&sets.test), [1; 10]);
    assert_eq!((sets.train.classes(), sets.train.class_names().len()), (10, 10));
    assert!(embedded(1, 0, 0).train.is_empty());
}

#[test]
fn bytes_are_the_same_on_every_machine() {
    let sets = embedded(1234, 100, 20);
    let crc = |set: &Dataset| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(set.images());
        set.labels().iter().for_each(|label| hasher.update(&label.to_le_bytes()));
        hasher.finalize()
    };
    assert_eq!((crc(&sets.train), crc(&sets.test)), (0xe1ca731a, 0xac7125f4));
}

/// Softmax regression on standardised pixels by mini-batch SGD; returns train and test accuracy.
fn linear_classifier(train: &Dataset, test: &Dataset, epochs: usize) -> (f64, f64) {
    let numel = train.shape().numel();
    let n = train.len() as f32;
    let mut mean = vec![0f32; numel];
    let mut square = vec![0f32; numel];
    for image in train.images().chunks_exact(numel) {
        for ((mean, square), &value) in mean.iter_mut().zip(&mut square).zip(image) {
            *mean += f32::from(value) / n;
            *square += f32::from(value) * f32::from(value) / n;
        }
    }
    let inv_std: Vec<f32> =
        mean.iter().zip(&square).map(|(m, s)| 1.0 / (s - m * m).max(1.0).sqrt()).collect();
    let standardised = |set: &Dataset, i: usize| -> Vec<f32> {
        set.image(i).iter().zip(&mean).zip(&inv_std).map(|((&x, m), s)| (f32::from(x) - m) * s).collect()
    };
    let mut w = vec![0f32; 10 * numel];
    let probabilities = |w: &[f32], x: &[f32]| -> [f32; 10] {
        let mut p: [f32; 10] =
            std::array::from_fn(|k| w[k * numel..(k + 1) * numel].iter().zip(x).map(|(w, x)| w * x).sum());
        let largest = p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        p.iter_mut().for_each(|p| *p = (*p - largest).exp());
        let sum: f32 = p.iter().sum();
        p.map(|p| p / sum)
    };
    let mut order: Vec<usize> = (0..train.len()).collect();
    for epoch in 0..epochs {
        Philox::new(0, Stream::Replay, epoch as u64).shuffle(&mut order);
        let lr = 1e-3 / (1.0 + epoch as f32);
        for &i in &order {
            let x = standardised(train, i);
            let mut p = probabilities(&w, &x);
            p[train.label(i) as usize] -= 1.0;
            for (row, p) in w.chunks_exact_mut(numel).zip(p) {
                row.iter_mut().zip(&x).for_each(|(w, x)| *w -= lr * (p * x + 1e-2 * *w));
            }
        }
    }
    let accuracy = |set: &Dataset| {
        let right = (0..set.len()).filter(|&i| {
            let p = probabilities(&w, &standardised(set, i));
            (0..10).max_by(|&a, &b| p[a].total_cmp(&p[b])) == Some(set.label(i) as usize)
        });
        right.count() as f64 / set.len() as f64
    };
    (accuracy(train), accuracy(test))
}

#[test]
fn a_linear_classifier_stays_under_half() {
    let sets = embedded(1234, 5000, 1000);
    let (train, test) = linear_classifier(&sets.train, &sets.test, 4);
    println!("linear classifier: train {train:.3}, test {test:.3}");
    assert!(train > 0.2, "the classifier of this test does not learn at all: {train}");
    assert!(test < 0.5, "a linear classifier reaches {test}");
}
