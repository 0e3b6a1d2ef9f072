"""danlu recipe check, recipe schema."""

import typer

app = typer.Typer(help="Check a recipe, or print what a recipe can say.", no_args_is_help=True, rich_markup_mode=None)
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=EXTRA)
def check(
    context: typer.Context,
    what: list[str] = typer.Argument(..., help="Recipe files and overrides, as for `danlu run`."),
    as_json: bool = typer.Option(False, "--json", help="As JSON instead of YAML."),
) -> None:
    """Validate a recipe and print it with every default filled in."""
    import yaml

    from danlu.cli.main import json_out
    from danlu.cli.run import build_recipe

    recipe = build_recipe([*what, *context.args])
    if as_json:
        json_out(recipe.to_dict())
        return
    typer.echo(yaml.safe_dump(recipe.to_dict(), allow_unicode=True, sort_keys=False), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a recipe."""
    from danlu.cli.main import json_out
    from danlu.recipe.recipe import Recipe

    json_out(Recipe.model_json_schema())
