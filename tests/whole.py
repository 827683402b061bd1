"""The plain functions of `tulu_jax.models` compiled whole: op by op each of them takes seconds."""

import jax

from tulu_jax import models

forward = jax.jit(models.forward, static_argnums=0, static_argnames="compute")
hidden_states = jax.jit(models.hidden_states, static_argnums=0, static_argnames="compute")
init_params = jax.jit(models.init_params, static_argnums=0)
