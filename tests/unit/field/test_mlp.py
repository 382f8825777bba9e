"""placeholder"""


def test_mlp_has_the_layers_asked_for() -> None:
    network = mlp(5, 8, 3, 2, torch.Generator().manual_seed(0))
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(5, 8), (8, 8), (8, 8), (8, 2)]
    assert isinstance(network[-1], torch.nn.Linear)
