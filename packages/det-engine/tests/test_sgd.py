import pytest
import torch
from torch import nn

from det_engine.sgd import StaticSGD


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.01), (0.9, 0.0), (0.0, 0.01)])
def test_it_computes_what_the_fused_kernel_computes(momentum, weight_decay, tensor_lr):
    lr = torch.tensor(0.1) if tensor_lr else 0.1
    results = []
    for kind, fused in ((torch.optim.SGD, True), (StaticSGD, None)):
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.rand(3, 2)), nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(1))]
        optimizer = kind(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
        for step in range(4):
            for parameter in parameters[:2]:
                parameter.grad = torch.rand_like(parameter)
            overflow = step == 2
            if overflow:
                parameters[0].grad.fill_(torch.nan)
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(float(overflow))
            before = [parameter.detach().clone() for parameter in parameters]
            optimizer.step()
            if overflow:
                assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))
        del optimizer.grad_scale, optimizer.found_inf
        parameters[1].grad = torch.rand_like(parameters[1])
        optimizer.step()
        buffers = [optimizer.state[parameter].get("momentum_buffer") for parameter in parameters[:2]]
        results.append([*parameters, parameters[1].grad, *(buffer for buffer in buffers if buffer is not None)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_closure_is_refused():
    optimizer = StaticSGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: 0.0)
