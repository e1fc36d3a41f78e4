"""`spectune corpus build`: text, JSON lines or Parquet to token shards that the language model reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

corpus = typer.Typer(name="corpus", help="Make corpora for the task language_model.", no_args_is_help=True)


@corpus.command(name="build")
def build(
    source: Annotated[
        Path, typer.Option("--input", metavar="PATH", help="A folder of text or Parquet, a .jsonl or a .parquet file.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make; must not exist.")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="bytes|FILE", help="bytes, or a local tokenizer.json.")
    ] = "bytes",
    column: Annotated[str, typer.Option("--column", help="Where a row holds its document.")] = "text",
    validation_share: Annotated[
        float, typer.Option("--validation-share", help="The share of documents that is held out.")
    ] = 0.1,
    shard_tokens: Annotated[int, typer.Option("--shard-tokens", min=1024, max=2**30, help="Tokens of a shard.")] = 10
    ** 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write documents as .bin shards with a manifest; `corpus: DIR` in a campaign trains on them."""
    from spectune.trainers.data.corpus_build import build_corpus  # torch takes seconds, and only this verb needs it
    from spectune.trainers.data.documents import num_bytes, tokenizer_from
    from spectune.trainers.data.text import CorpusError

    if not 0.0 < validation_share < 1.0:
        raise typer.BadParameter(f"above 0 and below 1: got {validation_share}", param_hint="--validation-share")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        made_by = tokenizer_from(tokenizer)
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("tokenizing", total=num_bytes(source))
            built = build_corpus(
                source,
                made_by,
                out,
                column=column,
                validation_share=validation_share,
                shard_tokens=shard_tokens,
                on_progress=lambda done: progress.update(bar, completed=done),
            )
    except CorpusError as error:
        raise typer.BadParameter(str(error)) from error
    told = {
        "folder": str(built.folder),
        "documents": built.documents,
        "train_tokens": built.train_tokens,
        "validation_tokens": built.validation_tokens,
        "vocabulary": built.vocabulary,
    }
    if as_json:
        print(json.dumps(told))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{built.documents} documents: {built.train_tokens} tokens to train on, {built.validation_tokens} held out, "
        f"of {built.vocabulary} kinds"
    )
    console.print(f"corpus: {built.folder}", markup=False)
