"""The votes of a project: counted, explained, downloaded as training pairs or made a dataset of."""

from __future__ import annotations

import time
from functools import partial

from nicegui import ui

from danlu.services.platform import votes
from danlu.services.platform.votes import NewPairs
from danlu.store.votes import Tally, Vote
from danlu.web.components.elements import Text, badge, bar, box, button, card, facts, fold, moment, note, paragraph
from danlu.web.components.messages import confirm, guarded
from danlu.web.rights import Rights
from danlu.web.session import Session

LISTED = 10
ASKED_CHARS = 120


class VotesCard:
    """What the votes and corrections of a project say so far."""

    def __init__(self, s: Session, project_id: str, names: dict[str, str], rights: Rights) -> None:
        self.s, self.project_id, self.names, self.rights = s, project_id, names, rights
        with card(s.t("chat.votes")):
            self.place = box("dl-col wide")

    async def draw(self) -> None:
        """Count anew, and show it."""
        tally = await self.s.do(votes.count_votes, self.project_id)
        newest = (await self.s.do(votes.list_votes, self.project_id, limit=LISTED)).items
        self.place.clear()
        with self.place:
            self._draw(tally, newest)

    def _draw(self, tally: Tally, newest: list[Vote]) -> None:
        s = self.s
        paragraph(s.t("chat.votes_text"), "dl-muted")
        if not tally.num_votes and not tally.num_corrections:
            return
        facts(
            [
                (s.t("chat.num_votes"), s.t("chat.num_votes_of", count=tally.num_votes, blind=tally.num_blind, ties=tally.num_ties)),
                (s.t("chat.num_corrections"), str(tally.num_corrections)),
                (s.t("chat.num_pairs"), str(tally.num_pairs)),
            ]
        )
        if tally.models:
            self._models(tally)
        why_not = None if tally.num_pairs else s.t("chat.pairs_none")
        with box("dl-row"):
            if self.rights.may(votes.make_pairs_dataset):
                button(s.t("chat.pairs_dataset"), guarded(s, self._make), classes="primary", why_not=why_not)
            button(s.t("chat.pairs_download"), guarded(s, self._download), symbol="download", why_not=why_not)
        self.told = box("dl-col").props("role=status")
        if newest:
            with fold(s.t("chat.votes_newest")), box("dl-list", "ul"):
                for vote in newest:
                    self._vote(vote)

    def _models(self, tally: Tally) -> None:
        s = self.s
        with box("dl-table cards small", "table"):
            Text(s.t("chat.votes"), "caption", "dl-skip")
            with box("", "thead"), box("", "tr"):
                for key, classes in (("model", ""), ("shown", "right"), ("won", "right"), ("tie", "right"), ("share", "")):
                    Text(s.t(f"chat.{key}"), "th", classes).props("scope=col")
            with box("", "tbody"):
                for one in tally.models:
                    with box("", "tr"):
                        Text(self._name(one.model), "td")
                        for key, number in (("shown", one.num_shown), ("won", one.num_better), ("tie", one.num_equal)):
                            Text(str(number), "td", "right")._props["data-label"] = s.t(f"chat.{key}")
                        with box("", "td") as cell:
                            cell._props["data-label"] = s.t("chat.share")
                            share = one.num_better / one.num_shown
                            bar(share, s.t("chat.share_of", name=self._name(one.model), share=f"{share:.0%}")).style("min-width: 80px; flex: 1")

    def _vote(self, vote: Vote) -> None:
        s = self.s

        async def delete() -> None:
            if await confirm(s, s.t("chat.vote_delete_title"), s.t("chat.vote_delete_text"), do=s.t("chat.vote_delete"), danger=True):
                await s.do(votes.delete_vote, vote.id)
                await self.draw()

        with box("", "li").style("padding-left: 0; padding-right: 0"):
            with box():
                asked = str(vote.messages[-1].get("content", ""))
                Text(asked if len(asked) <= ASKED_CHARS else asked[:ASKED_CHARS] + "\u2026", "span", "dl-text")
                with box("dl-row dl-small dl-muted"):
                    winner = s.t("chat.tie") if vote.winner is None else s.t("chat.vote_for", name=self._name(vote.answers[vote.winner]["model"]))
                    Text(winner)
                    if vote.is_blind:
                        badge(s.t("chat.vote_blind"))
                    moment(vote.created_at)
            if self.rights.may(votes.delete_vote):
                button(s.t("chat.vote_delete"), guarded(s, partial(delete)), classes="small danger")

    def _name(self, model: str) -> str:
        return self.names.get(model, model)

    async def _download(self) -> None:
        lines: str = await self.s.do(votes.export_pairs, self.project_id)
        ui.download.content(lines, "pairs.jsonl", "application/jsonl")

    async def _make(self) -> None:
        s, begun, pairs = self.s, time.time(), NewPairs()
        made = await s.do(votes.make_pairs_dataset, self.project_id, pairs)
        address = f"/datasets/{made.dataset_id}?version={made.number}"
        if made.created_at >= begun:
            ui.navigate.to(address)
            return
        self.told.clear()  # they were made a dataset of before
        with self.told, note(s.t("chat.pairs_there", name=f"{pairs.name}@{made.number}"), "accent"), box("dl-row"):
            button(s.t("chat.pairs_open"), href=address, classes="small")
