def test_it_lists_every_task_with_its_classes(cli):
    found = cli("tasks")
    assert found.code == 0, found.err
    assert found.out.count("negative 30, positive 30") == 16
    assert found.out.count("meta_test ") == 4
