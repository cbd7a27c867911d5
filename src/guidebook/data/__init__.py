"""The data layer: files to rows, rows to tokens, tokens to planned batches. Only `masking` needs torch."""
