"""Signing in, the first administrator, invitations; and what is told when a session ends in mid-page."""

WORDS = {
    "admin_intro": (
        "Nobody has an account yet. The server printed a token when it started; with it you make the first administrator, once.",
        "还没有任何账户。服务器启动时打印了一个令牌；用它创建第一位管理员，仅限一次。",
    ),
    "admin_title": ("Make the first administrator", "创建第一位管理员"),
    "again_text": (
        "Nothing you entered is lost. Sign in in a new tab; this page then goes on by itself.",
        "你填写的内容都还在。请在新标签页登录，之后本页会自动继续。",
    ),
    "again_title": ("Please sign in again", "请重新登录"),
    "bad_account": (
        "This account cannot be made. A password has at least 10 characters, 5 of them different, and is not easily guessed; the name must be free.",
        "无法创建这个账户。密码至少 10 个字符，其中至少 5 个不同，不能是常见密码或用户名；用户名不能已被使用。",
    ),
    "bad_credentials": ("The name or the password is wrong.", "用户名或密码不正确。"),
    "bad_network": ("The server cannot be reached. Try again in a moment.", "无法连接服务器，请稍后再试。"),
    "bad_other": (
        "That did not work ({code}). Try again; an administrator finds more in the server's log.",
        "没有成功（{code}）。请再试一次；管理员可在服务器日志中查到更多信息。",
    ),
    "bad_plain": (
        "Signing in needs https: the password would cross the network in the clear. Ask the administrator for the https address.",
        "登录需要 https，否则密码会以明文在网络上传输。请向管理员索取 https 地址。",
    ),
    "bad_token": (
        "This token is not valid: it was used, taken back, has expired, or is mistyped. Ask for a new one.",
        "令牌无效：已被使用、已撤回、已过期或输入有误。请索取新的令牌。",
    ),
    "done_text": ("You can close this tab; the other one goes on.", "可以关闭本标签页，另一个页面会继续。"),
    "done_title": ("You are signed in", "已登录"),
    "home": ("To the home page", "回到首页"),
    "invitation_intro": ("Choose what you sign in with.", "设置你的登录信息。"),
    "invitation_title": ("Accept an invitation", "接受邀请"),
    "make": ("Make the account", "创建账户"),
    "name": ("Name", "用户名"),
    "new_password": ("New password", "新密码"),
    "open": ("Sign in", "去登录"),
    "or": ("or", "或"),
    "password": ("Password", "密码"),
    "password_help": ("At least 10 characters; several words are good.", "至少 10 个字符，用几个词组成最好。"),
    "provider": ("Sign in with your organisation", "用所在组织的账户登录"),
    "provider_failed": ("Your organisation's sign-in did not go through.", "组织账户登录没有成功。"),
    "provider_refused": (
        "This sign-in cannot go on: it took too long, was refused, or there is no account for you yet. Begin again, or ask an administrator for an invitation.",
        "登录无法继续：超时、被拒绝，或还没有你的账户。请重新开始，或向管理员索取邀请。",
    ),
    "reset_intro": ("Choose a new password. Every open session of yours ends.", "设置新密码。你的所有登录会话都会结束。"),
    "reset_title": ("Set a new password", "设置新密码"),
    "sign_in": ("Sign in", "登录"),
    "title": ("Sign in", "登录"),
    "token": ("Token", "令牌"),
    "too_many": ("Too many attempts. Wait a few minutes, then try again.", "尝试次数过多，请等几分钟再试。"),
    "use_invitation": ("I have an invitation", "我有邀请"),
    "use_name": ("Sign in by name and password", "使用用户名和密码登录"),
}
