"""Streams of packed groups whose state is a few integers, and the batches made of them.

PUBLIC API, first cut (bodies follow within minutes; signatures are stable):

    tokenizer = load_tokenizer(path_or_hub)                                    # data/tokenizer.py
    limits = Limits(max_length=1024, max_response=512, too_long="cut")         # data/encode.py
    pack = PackSpec(row_length=4096, rows=8, max_pairs=16, num_contexts=K)     # data/pack.py
    recipe = Recipe(source, rule, contexts, tokenizer, limits, pack, on_error) # data/dataset.py
    counts = survey(recipe, num_workers=0)                                     # data/dataset.py -> Survey
    dataset = PairDataset(recipe, counts.table)                                # dataset[i] -> EncodedPair, len(dataset)
    stream = make_stream([dataset], pack, seed=0, num_epochs=None, num_streams=G, owned=range(G), num_workers=0,
                         shuffle=True, weights=None)
    for groups in stream:                       # list[Group], one per owned stream, in the order of `owned`
      batch = collate(groups, accumulation=A, num_pairs=count_pairs(groups))   # Batch of numpy arrays
      state = stream.get_state()                # {"streams": {"0": {"next": 17, "pending": [3, 9]}, ...}}
    stream.set_state(state)                     # needs (at least) the owned streams
    stream.empty_groups()                       # what an exhausted stream emits: for hosts that end earlier than others
    stream.close()                              # ends the worker processes
    print(show_sample(dataset[0], tokenizer, contexts.names))                  # data/sample.py
"""
