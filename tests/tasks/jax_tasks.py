"""Tasks in JAX, for workers to import: plain parameters, Equinox, Flax."""

import functools

import jax
import jax.numpy as jnp
import optax

from pbt.tasks.jax import JaxTask, argument, injected

KEY = jax.random.key(7)
X = jax.random.normal(KEY, (64, 3))
Y = jnp.sin(X @ jnp.array([1.0, -2.0, 0.5]))
ADAM = optax.inject_hyperparams(optax.adam)
DECAY = 0.9


def plain_build(hparams, key):
    params = {"w": jax.random.normal(key, (3, 8)) / 3, "v": jnp.zeros(8)}
    return {"params": params, "opt": ADAM(learning_rate=hparams["lr"]).init(params)}


def predict(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def loss(params, noise):
    return jnp.mean((predict(params, X + noise) - Y) ** 2)


@jax.jit
def step(params, opt, noise):
    updates, opt = ADAM(learning_rate=0.0).update(jax.grad(loss)(params, noise), opt)
    return optax.apply_updates(params, updates), opt


def plain_train(tree, hparams, steps, ctx):
    params, opt = tree["params"], tree["opt"]
    for number in range(ctx.first_step, ctx.first_step + steps):
        noise = hparams.get("noise", 0.0) * jax.random.normal(jax.random.fold_in(KEY, number), X.shape)
        params, opt = step(params, opt, noise)
    return {"params": params, "opt": opt}


def plain_evaluate(tree, hparams, ctx):
    return {"loss": loss(tree["params"], 0.0), "largest": jnp.abs(tree["params"]["w"]).max()}


def decaying_train(tree, hparams, steps, ctx):
    """Changes its own rate after every step, as a scheduler would."""
    for number in range(steps):
        here = type(ctx)(**{name: getattr(ctx, name) for name in ("seed", "member", "round", "hparams")},
                         first_step=ctx.first_step + number)  # fmt: skip
        tree = plain_train(tree, hparams, 1, here)
        rate = tree["opt"].hyperparams["learning_rate"] * DECAY
        tree["opt"] = tree["opt"]._replace(hyperparams={**tree["opt"].hyperparams, "learning_rate": rate})
    return tree


def failing_train(tree, hparams, steps, ctx):
    if 0.02 < hparams["lr"] < 0.04:
        raise ArithmeticError("no such rate")
    return plain_train(tree, hparams, steps, ctx)


BIND = {"lr": injected("learning_rate"), "noise": argument()}
plain = functools.partial(
    JaxTask, build=plain_build, train=plain_train, evaluate=plain_evaluate, bind=BIND, score="loss"
)


def equinox_build(hparams, key):
    import equinox as eqx

    model = eqx.nn.MLP(3, "scalar", 8, 1, activation=jnp.tanh, key=key)
    return model, ADAM(learning_rate=hparams["lr"]).init(eqx.filter(model, eqx.is_array))


@functools.cache
def equinox_update():
    import equinox as eqx

    def error(model):
        return jnp.mean((jax.vmap(model)(X) - Y) ** 2)

    @eqx.filter_jit
    def update(model, opt):
        updates, opt = ADAM(learning_rate=0.0).update(eqx.filter_grad(error)(model), opt)
        return eqx.apply_updates(model, updates), opt

    return update


def equinox_train(tree, hparams, steps, ctx):
    for _ in range(steps):
        tree = equinox_update()(*tree)
    return tree


def equinox_evaluate(tree, hparams, ctx):
    return float(jnp.mean((jax.vmap(tree[0])(X) - Y) ** 2))


equinox = functools.partial(
    JaxTask, build=equinox_build, train=equinox_train, evaluate=equinox_evaluate, bind={"lr": injected("learning_rate")}
)


def flax_build(hparams, key):
    from flax import nnx

    model = nnx.Sequential(nnx.Linear(3, 8, rngs=nnx.Rngs(key)), jnp.tanh, nnx.Linear(8, 1, rngs=nnx.Rngs(key)))
    return {"model": model, "optimizer": nnx.Optimizer(model, ADAM(learning_rate=hparams["lr"]), wrt=nnx.Param)}


@functools.cache
def flax_update():
    from flax import nnx

    @nnx.jit
    def update(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: jnp.mean((model(X)[:, 0] - Y) ** 2))(model))

    return update


def flax_train(tree, hparams, steps, ctx):
    for _ in range(steps):
        flax_update()(tree["model"], tree["optimizer"])
    return tree


def flax_evaluate(tree, hparams, ctx):
    return float(jnp.mean((tree["model"](X)[:, 0] - Y) ** 2))


flax = functools.partial(
    JaxTask, build=flax_build, train=flax_train, evaluate=flax_evaluate, bind={"lr": injected("learning_rate")}
)
