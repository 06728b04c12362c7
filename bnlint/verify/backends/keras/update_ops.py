"""``update-ops``: where moving statistics are when training steps do not run their updates.

``tf.layers`` and ``tf.contrib`` are no part of today's TensorFlow, so the layer is built by hand in a graph of
``tf.compat.v1``, where updates can be left in their collection: ``y = gamma (x - mean) / sqrt(variance + epsilon) +
beta`` with the batch's moments in training and the moving ones for inference, and ``moving = m moving + (1 - m) batch``
as an operation of its own. The same steps are taken with the updates left there and, mended, run with each step.
"""

from __future__ import annotations

from typing import Any

from bnlint.verify import fixture
from bnlint.verify.backends import CannotMeasure, Facts, Options
from bnlint.verify.backends.keras.rebuilt import Array, Rebuilt, np, relative, tf
from bnlint.verify.fixture import plain

#: Training steps: with momentum 0.99 the moving statistics are then 87 % of the way to the data's, with 0.999 18 %.
STEPS = 200


def measure(rebuilt: Rebuilt, options: Options) -> Facts:
    if tf is None:
        raise CannotMeasure("a graph of TensorFlow 1 needs tensorflow, which is not installed")
    if not rebuilt.normalises:
        raise CannotMeasure(f"{rebuilt.name} has no moving statistics")
    x = rebuilt.input()
    (written, still), (mended, moved) = (_trained(rebuilt, x, runs_updates) for runs_updates in (False, True))
    return {
        **rebuilt.facts(x),
        "steps": STEPS,
        "gap_to_mended": plain(relative(written, mended)),
        "statistics_change_as_written": plain(still),
        "statistics_change_mended": plain(moved),
    }


def _trained(rebuilt: Rebuilt, x: Array, runs_updates: bool) -> tuple[Array, float]:
    """The output for inference after training, and by how much the moving statistics have moved."""
    v1: Any = tf.compat.v1
    layer = rebuilt.fresh()
    momentum, epsilon = float(layer.momentum), float(layer.epsilon)
    axis = rebuilt.axis % x.ndim
    others = [dimension for dimension in range(x.ndim) if dimension != axis]
    size = [x.shape[dimension] if dimension == axis else 1 for dimension in range(x.ndim)]
    with tf.Graph().as_default() as graph:
        inputs = v1.placeholder(tf.float32, x.shape)
        zeros, ones = tf.zeros(size), tf.ones(size)
        beta = v1.Variable(zeros, trainable=layer.center)
        gamma = v1.Variable(ones, trainable=layer.scale)
        weight = v1.Variable(1.0)
        moving = [v1.Variable(zeros, trainable=False), v1.Variable(ones, trainable=False)]
        moments = tf.nn.moments(inputs, others, keepdims=True)
        for old, new in zip(moving, moments, strict=True):
            if layer.trainable:
                v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, v1.assign(old, momentum * old + (1 - momentum) * new))
        training = tf.nn.batch_normalization(inputs, *moments, beta, gamma, epsilon)
        inference = tf.nn.batch_normalization(inputs, *moving, beta, gamma, epsilon)
        loss = tf.reduce_mean(tf.square(weight * training - 1.0))
        with graph.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS) if runs_updates else []):
            step = v1.train.GradientDescentOptimizer(0.01).minimize(loss)
        rng = np.random.default_rng(fixture.SEED + 1)
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            before = session.run(moving)
            for _ in range(STEPS):
                batch = rng.normal(fixture.INPUT_MEAN, fixture.INPUT_SD, x.shape).astype("float32")
                session.run(step, {inputs: batch})
            after, output = session.run([moving, inference], {inputs: x})
    return output.astype("float64"), max(float(np.abs(a - b).max()) for a, b in zip(after, before, strict=True))
