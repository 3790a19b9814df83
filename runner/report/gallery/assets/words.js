// Texts of the page in the browser's language; `{0}` is a placeholder.
const WORDS = {
  en: {
    done: "done", failed: "failed", stranded: "stranded", held: "held", in_doubt: "in doubt", queued: "queued",
    submitting: "submitting", running: "running", ready: "downloading", all: "all",
    search: "Search prompts, names, reasons, ids   ( / )", rows: "Rows", columns: "Columns", order: "Order", size: "Size",
    none: "none", by_manifest: "manifest", by_newest: "newest first", by_name: "file name",
    theme: "Light or dark", provider: "provider", model: "model", state: "state", repeat: "repeat", reason: "reason",
    tasks: "{0} tasks", made: "made {0}", cost: "cost {0}", newest: "Only the newest {0} of {1} tasks are on this page.",
    nothing: "Nothing matches. Another state or fewer words may.", empty: "This job has no tasks yet.",
    loading: "Reading {0} of {1} tasks …", no_file: "not here: moved or deleted", no_preview: "no preview",
    no_sound: "sound", close: "Close", previous: "Previous", next: "Next", copy_row: "Copy manifest row", copied: "Copied",
    not_copied: "Select and copy it below", open: "Open file", why: "Why", vars: "Variables", request: "Request",
    facts: "Task", key: "key", id: "remote id", attempts: "attempts", price: "cost", queued_at: "queued",
    submitted_at: "submitted", finished_at: "finished", took: "took", file: "file", unknown: "unknown", of: "{0} of {1}",
    missing: "Data of this page is missing; `runner gallery` makes it again.", others: "others",
    pretend: "sandbox, nothing was paid", seconds: "{0} s", minutes: "{0} min", hours: "{0} h {1} min",
  },
  zh: {
    done: "完成", failed: "失败", stranded: "待取回", held: "待人工处理", in_doubt: "存疑", queued: "排队", submitting: "提交中",
    running: "生成中", ready: "下载中", all: "全部",
    search: "搜索提示词、文件名、原因、编号（ / ）", rows: "按行", columns: "按列", order: "排序", size: "大小",
    none: "不分组", by_manifest: "清单顺序", by_newest: "最新在前", by_name: "文件名",
    theme: "浅色或深色", provider: "服务商", model: "模型", state: "状态", repeat: "重复", reason: "原因",
    tasks: "{0} 个任务", made: "生成于 {0}", cost: "费用 {0}", newest: "本页只显示 {1} 个任务中最新的 {0} 个。",
    nothing: "没有匹配的结果，请换一个状态或减少搜索词。", empty: "这个作业还没有任务。",
    loading: "正在读取 {0} / {1} 个任务…", no_file: "文件已移动或删除", no_preview: "无法预览",
    no_sound: "音频", close: "关闭", previous: "上一个", next: "下一个", copy_row: "复制清单行", copied: "已复制",
    not_copied: "请在下方选中并复制", open: "打开文件", why: "原因", vars: "变量", request: "请求",
    facts: "任务", key: "键", id: "远端编号", attempts: "提交次数", price: "费用", queued_at: "排队时间",
    submitted_at: "提交时间", finished_at: "完成时间", took: "用时", file: "文件", unknown: "未知", of: "第 {0} 个，共 {1} 个",
    missing: "缺少本页数据；运行 `runner gallery` 可重新生成。", others: "其他",
    pretend: "沙箱，未付费", seconds: "{0} 秒", minutes: "{0} 分钟", hours: "{0} 小时 {1} 分", unit_beans: "蝉豆",
  },
};
const LANGUAGE = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
const say = (word, ...values) => (WORDS[LANGUAGE][word] ?? word).replace(/\{(\d)\}/g, (_, at) => values[at]);
/** Return the translated name of a cost unit; most units have the same name in every language. */
const unitName = (unit) => WORDS[LANGUAGE][`unit_${unit}`] ?? unit;
const number = (value) => Number(value).toLocaleString(LANGUAGE);
