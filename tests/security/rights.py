"""What every operation asks for, written by hand: a right that is wrong in the code is noticed here, and so is a new operation.

anyone < user (signed in, or a key) < person (signed in, no key); viewer < reviewer < editor < admin in the project it concerns;
operator: administers the installation.
"""

RIGHTS = {
    # projects, members
    "create_project": "user",
    "list_projects": "user",
    "get_project": "viewer",
    "change_project": "admin",
    "delete_project": "admin",
    "list_members": "viewer",
    "set_member": "admin",
    "remove_member": "admin",
    # runs
    "submit_run": "editor",
    "list_runs": "viewer",
    "get_run": "viewer",
    "list_run_jobs": "viewer",
    "delete_run": "admin",
    # the queue
    "list_queue": "user",
    "list_workers": "user",
    "list_jobs": "viewer",
    "get_job": "viewer",
    "cancel_job": "editor",
    "pause_job": "editor",
    "resume_job": "editor",
    "move_job": "editor",
    "read_log": "viewer",
    # users
    "list_users": "operator",
    "create_user": "operator",
    "get_user": "operator",
    "change_user": "operator",
    "delete_user": "operator",
    "find_person": "user",
    "get_me": "user",
    "get_view": "person",
    "change_view": "person",
    "get_draft": "person",
    "save_draft": "person",
    "change_password": "person",
    # invitations
    "invite": "operator",
    "invite_again": "operator",
    "list_invitations": "operator",
    "withdraw_invitation": "operator",
    # sessions, keys
    "list_sessions": "person",
    "end_session": "person",
    "end_sessions": "person",
    "create_key": "person",
    "list_keys": "person",
    "revoke_key": "person",
    "list_all_keys": "operator",
    "revoke_any_key": "operator",
    # audit log
    "list_audit": "operator",
    "list_project_audit": "admin",
    # data
    "list_examples": "user",
    "create_dataset": "editor",
    "list_datasets": "viewer",
    "get_dataset": "viewer",
    "change_dataset": "editor",
    "delete_dataset": "editor",
    "list_dataset_versions": "viewer",
    "get_dataset_version": "viewer",
    "inspect_dataset": "editor",
    "show_example": "editor",
    "preview_rows": "viewer",
    "list_findings": "viewer",
    "preview_split": "viewer",
    "edit_rows": "editor",
    "map_columns": "editor",
    "fix_rows": "editor",
    "begin_upload": "editor",
    "list_uploads": "viewer",
    "get_upload": "viewer",
    "finish_upload": "editor",
    "abandon_upload": "editor",
    # more on runs
    "change_run": "editor",
    "duplicate_run": "editor",
    "continue_run": "editor",
    "stop_run": "editor",
    "resume_run": "editor",
    "take_run": "editor",
    "submit_sweep": "editor",
    "preview_sweep": "viewer",
    "list_sweeps": "viewer",
    "get_sweep": "viewer",
    "get_sweep_curves": "viewer",
    "submit_merge": "editor",
    "preview_run": "viewer",
    "compare_runs": "viewer",
    "check_recipe": "user",
    "get_recipe_schema": "user",
    "list_points": "viewer",
    "get_curves": "viewer",
    "list_events": "viewer",
    "list_diagnoses": "viewer",
    "list_samples": "viewer",
    "get_forecast": "viewer",
    # results
    "get_proof": "viewer",
    "get_report": "viewer",
    "download_report": "viewer",
    "list_cases": "viewer",
    "list_evaluations": "viewer",
    "get_evaluation": "viewer",
    "submit_export": "editor",
    "list_exports": "viewer",
    "get_export": "viewer",
    "delete_export": "editor",
    "list_base_models": "user",
    "register_model": "editor",
    "list_models": "viewer",
    "get_model": "viewer",
    "get_lineage": "viewer",
    "delete_model": "admin",
    # talking, votes
    "answer": "reviewer",
    "list_engines": "viewer",
    "load_engine": "reviewer",
    "unload_engine": "reviewer",
    "create_vote": "reviewer",
    "list_votes": "viewer",
    "delete_vote": "editor",
    "create_rating": "reviewer",
    "list_ratings": "viewer",
    "delete_rating": "editor",
    "count_votes": "viewer",
    "export_pairs": "viewer",
    "make_pairs_dataset": "editor",
    # files
    "download_dataset_version": "viewer",
    "download_export_file": "viewer",
    "download_model_file": "viewer",
    # notices
    "create_subscription": "admin",
    "list_subscriptions": "admin",
    "change_subscription": "admin",
    "delete_subscription": "admin",
    "list_deliveries": "admin",
    # the installation
    "get_usage": "viewer",
    "collect_garbage": "operator",
    "check_storage": "operator",
    "get_system_status": "user",
    "list_alarms": "operator",
}

BY_HAND = {
    "stream_run": "viewer",
    "stream_log": "viewer",
    "stream_answer": "reviewer",
    "append_chunk": "editor",
    "get_session": "anyone",
    "sign_in": "anyone",
    "sign_out": "anyone",
    "create_first_admin": "anyone",
    "accept_invitation": "anyone",
    "begin_provider_sign_in": "anyone",
    "finish_provider_sign_in": "anyone",
}
"""What routes of REST ask for that are made by hand, not from operations."""

RECIPE = {"base_model": "danlu/tiny", "dataset": "zhangjiajie"}


def recipes(ids: dict[str, str]) -> list[dict[str, object]]:
    """Recipes that name what belongs to others, or files of the server."""
    changes: list[dict[str, object]] = [{"dataset": ids["dataset name"]}, {"dataset": ids["dataset name"] + "@1"}, {"start_from": ids["run_id"]}]
    changes += [{"dataset": path} for path in ("/etc/passwd", "../../../etc/passwd", "~/.ssh/id_rsa", "./a/../../b")]
    changes += [{"base_model": path} for path in ("/etc", "../models/x", "..\\x")]
    changes += [{"data": {"mix": {"/etc/passwd": 0.1}}}, {"evaluation": {"suites": [{"type": "retention", "file": "/etc/passwd"}]}}]
    return [RECIPE | change for change in changes]


BODIES_OF_OTHERS = {
    "move_job": lambda ids: [{"before": ids["job_id"]}],
    "create_key": lambda ids: [{"project_id": ids["project_id"]}],
    "compare_runs": lambda ids: [{"run_ids": [ids["run_id"], ids["run_id"]]}],
    "submit_merge": lambda ids: [{"run_ids": [ids["run_id"], ids["run_id"] + "x"]}],
    "begin_upload": lambda ids: [{"dataset": ids["dataset_id"]}],
    "duplicate_run": lambda ids: [{"settings": {"dataset": ids["dataset name"]}}, {"settings": {"dataset": "/etc/passwd"}}],
    "submit_run": lambda ids: [{"recipe": recipe} for recipe in recipes(ids)],
    "submit_sweep": lambda ids: [
        *({"recipe": recipe, "sweep": {"set": {"seed": [1, 2]}}} for recipe in recipes(ids)),
        *({"recipe": RECIPE, "sweep": {"set": {"dataset": ["zhangjiajie", name]}}} for name in ("/etc/passwd", ids["dataset name"])),
        {"recipe": RECIPE, "sweep": {"set": {"base_model": ["danlu/tiny", "/etc"]}}},
    ],
    "answer": lambda ids: [{"model": ids["run_id"]}, {"model": "/etc"}],
    "load_engine": lambda ids: [{"model": ids["run_id"]}, {"model": "../x"}],
}
"""Bodies that name what belongs to another project, or files of the server: the operation itself has to refuse them."""

BEYOND = {
    "load_engine": ("editor", {"model": "somebody/large-model"}),
    "answer": ("editor", {"model": "somebody/large-model", "messages": [{"role": "user", "content": "?"}]}),
}
"""Bodies that ask for more than the operation does: loading a base model that nothing in the project is made from costs memory, disk and network."""

FREE_BODIES = {"invite": {"project_id"}, "change_view": {"project_id"}}
"""Fields that end like ids and may name anything: for operators, or only remembered."""

OTHER_IDS = {"user_id", "key_id", "session_id", "invitation_id"}
"""Parameters that name what belongs to no project: their operations look for it among what belongs to who asks, or are for operators."""
