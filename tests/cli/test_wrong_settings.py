"""Wrong settings are answered before data are read: one short paragraph, no trace, an exit code, nothing left."""

import pytest

from tests.tool import one_paragraph

LINES = """
T=0 T=-1 T=1.5 T=true T=1025 T=[2] T=null seed=-1 seed=x seed=4294967296 name= name=a/b compile=fast memory=all
test=3 report=maybe overwrite=7 neuron=null neuron=nope neuron=5 neuron.s_max=0 neuron.s_max=128 neuron.s_max=2.5
neuron.tau=0 neuron.tau=-1 neuron.tau=x neuron.delta=0 neuron.beta=-1 neuron.reset=nope neuron.output=nope
neuron.smax=3 +neuron.nope=3 neuron._target_=nope neuron._target_=qbsnn.neurons.Nope model=null model=nope
model.width=0 model.width=-1 model.norm=nope model.neurons=4 model.neurons={conv1:4} +model.nope=1
model.encoding=nope data=nope data.batch_size=0 data.batch_size=x data.val_fraction=2 data.num_workers=-1
+data.nope=1 data.limit_train=0 optim=nope optim.optimizer=null optim.optimizer.lr=-1 optim.optimizer.lr=x
optim.optimizer.lr=inf optim.optimizer.lr=nan optim.optimizer.lr=null optim.optimizer.weight_decay=-1
+optim.optimizer.nope=4 +optim.optimizer.betas=[2,3] optim.optimizer._target_=torch.optim.Nope
optim.scheduler.T_max=0 optim.scheduler.T_max=-inf optim.scheduler.T_max=x +optim.scheduler.nope=3
+optim.scheduler.eta_min=x optim.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau
optim.scheduler._target_=nope optim.loss=null optim.loss.label_smoothing=7 optim.loss.label_smoothing=x
+optim.loss.nope=1 optim.loss.decision=nope optim/loss=nope trainer=5 trainer=nope trainer.max_epochs=0
trainer.max_epochs=1.5 trainer.max_epochs=-1 +trainer.max_steps=-5 +trainer.max_steps=x trainer.max_time=soon
trainer.gradient_clip_val=-1 +trainer.gradient_clip_algorithm=nope trainer.accumulate_grad_batches=0
trainer.accelerator=nope trainer.devices=x trainer.devices=-3 trainer.devices=0 trainer.precision=nope
trainer.limit_train_batches=-1 trainer.limit_val_batches=x trainer.limit_test_batches=-0.5
trainer.limit_test_batches=0 data.root=~nobody_of_this_name/x
+trainer.val_check_interval=0 +trainer.check_val_every_n_epoch=0 trainer.num_sanity_val_steps=-5
trainer.log_every_n_steps=-1 trainer.deterministic=nope +trainer.benchmark=7 +trainer.detect_anomaly=3
+trainer.callbacks=7 +trainer.logger=3 +trainer.plugins=x +trainer.strategy=nope +trainer.nope=1
+trainer.num_nodes=0 trainer.default_root_dir=3 callbacks=null callbacks=nope callbacks.progress=5
callbacks.absorption.max_batches=-1 callbacks.absorption.max_batches=0 callbacks.integer.max_batches=x
callbacks.integer.onnx_images=-1 callbacks.bursts.warn_dead=2 callbacks.delta.penalty=-1 callbacks.delta.low=-1
callbacks.gradients.every=0 callbacks.divergence.every=0 callbacks.checkpoint.every_minutes=-1 +callbacks.x.nope=4
+callbacks.x._target_=nope +callbacks.integer.nope=3 logger=null logger=nope +logger.x=5 +logger.x.nope=3
deploy=nope deploy.bits=1 deploy.bits=9 deploy.theta=nope deploy.leak=nope deploy.membrane_bits=4 +deploy.nope=1
deploy.epochs=-1 experiment=nope sweep=nope debug=nope hydra.output_subdir=/ hydra.output_subdir=../x
hydra.run.dir=a/lr=0.1 nope=3 lr=3 T ~nope +T=3 paths.run=3 paths.outputs=null ~trainer.devices
"""
WRONG = LINES.split()
TRIED = [word if index % 8 == 0 else pytest.param(word, marks=pytest.mark.slow) for index, word in enumerate(WRONG)]


def test_there_are_enough():
    assert len(set(WRONG)) == len(WRONG) >= 100


@pytest.mark.parametrize("override", TRIED)
def test_a_wrong_setting_is_answered_before_data_are_read(tool, capsys, monkeypatch, override):
    def fit(parts):
        raise AssertionError("data would be read now")

    monkeypatch.setattr("qbsnn.training.run.fit", fit)
    assert tool("train.py", "trainer.accelerator=cpu" if "accel" not in override else "T=2", override) == 1
    text = capsys.readouterr().err
    one_paragraph(text)
    assert len(text.splitlines()) <= 20 and len(text) <= 2000
    assert tool.left_behind() == []
