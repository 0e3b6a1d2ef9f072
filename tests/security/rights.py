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
    "change_preferences": "person",
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
}

BODY_IDS = {
    "move_job": {"before": "job_id"},
    "create_key": {"project_id": "project_id"},
    "invite": {"project_id": "project_id"},  # for operators, who may name any project
}
"""Fields of bodies that name something of a project, and what: the operation itself has to check them."""

OTHER_IDS = {"user_id", "key_id", "session_id", "invitation_id"}
"""Parameters that name what belongs to no project: their operations look for it among what belongs to who asks, or are for operators."""
